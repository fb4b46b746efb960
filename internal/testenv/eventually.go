package testenv

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// Eventually asks cond again and again until it returns nil, and fails the test
// with cond's last error when that has not happened within. Choose within for the
// slowest machine: it costs nothing when things go well.
func Eventually(t testing.TB, within time.Duration, cond func() error) {
	t.Helper()
	if err := poll(within, cond); err != nil {
		t.Fatalf("not within %s: %v", within, err)
	}
}

// poll asks until cond returns nil, returns errGone, or time is up; cond is asked
// once more then.
func poll(within time.Duration, cond func() error) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := cond()
		if err == nil || errors.Is(err, errGone) {
			return err
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return cond()
		}
	}
}

// Freeport returns a loopback port that is free now.
func Freeport(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testenv: find a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
