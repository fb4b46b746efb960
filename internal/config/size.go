package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size such as 512MiB, 2GB or a plain number of bytes.
type Bytes int64

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// EnvDecode reads it from a variable.
func (b *Bytes) EnvDecode(text string) error {
	number, factor := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64/factor || n < 0 {
		return fmt.Errorf("%q is not a size such as 512MiB or 2GB", text)
	}
	*b = Bytes(n * factor)
	return nil
}

// String is the shortest exact form in binary units.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; b != 0 && int64(b)%u.factor == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.factor, u.suffix)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
