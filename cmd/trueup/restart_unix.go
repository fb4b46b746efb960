//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// restart puts a new image of this program in this process's place: same process id,
// arguments and environment, so that whoever started it notices nothing. A goroutine
// that turns for ever cannot be stopped in any other way. Every file of ours is closed
// on exec, and with it the lock on the queue's folder and the listeners.
func restart(reason string) {
	program, err := os.Executable()
	if err == nil {
		err = syscall.Exec(program, os.Args, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "trueup: ended by the watchdog (%s) and could not start again by itself: %v\n", reason, err)
	os.Exit(exitFailed)
}
