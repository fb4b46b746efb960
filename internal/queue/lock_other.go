//go:build !unix

package queue

import (
	"errors"
	"os"
)

// lockDir refuses: without flock nothing keeps two servers off one store.
func lockDir(string) (*os.File, error) {
	return nil, errors.New("queue: the embedded queue needs a Unix system; set NATS_URL")
}
