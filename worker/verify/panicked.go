package verify

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/trueup/trueup/internal/file"
)

// panicked carries a panic out of the goroutine, and out of the file, it happened in.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// fault makes the panic one file's own trouble.
func (p *panicked) fault() *file.Fault {
	return &file.Fault{Kind: file.Panicked, Stack: string(p.stack), Err: fmt.Errorf("panic: %v", p.value)}
}

// panicIn is the panic that err carries, else nil.
func panicIn(err error) *panicked {
	var p *panicked
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// caught turns a panic of f into an error.
func caught(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = &panicked{value: r, stack: debug.Stack()}
			}
		}()
		return f()
	}
}
