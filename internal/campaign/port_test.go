package campaign

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// Ports below those that the kernel hands out to callers: a server that is down for a
// moment must find its port free when it comes back. Each process has a slice of its own,
// so that campaigns side by side do not take each other's between the look and the start.
const (
	firstPort  = 10_000
	portSlice  = 500
	portSlices = 44
)

// handedOut counts the ports that this process has taken; no two of its servers may have
// the same, so there is one count.
var handedOut atomic.Int32

// freePort is a port that nobody has now, and nobody here will be given soon.
func freePort() (int, error) {
	first := firstPort + os.Getpid()%portSlices*portSlice
	for range portSlice {
		port := first + int(handedOut.Add(1))%portSlice
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port between %d and %d", first, first+portSlice)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
