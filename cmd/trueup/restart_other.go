//go:build !unix

package main

import (
	"fmt"
	"os"
)

// restart ends the process: whoever supervises it starts it again.
func restart(reason string) {
	fmt.Fprintf(os.Stderr, "trueup: ended by the watchdog: %s\n", reason)
	os.Exit(exitFailed)
}
