package campaign

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// Ports below those that the kernel hands out to callers: a server that is down for a
// moment must find its port free when it comes back. So a process goes through all of them
// before it gives one out again, and begins somewhere of its own: fourteen lanes hold 450
// at once, and in a slice of 500 took them from each other's servers while those were down.
const (
	firstPort = 10_000
	ports     = 22_000
)

// handedOut counts the ports that this process has taken; no two of its servers may have
// the same, so there is one count.
var handedOut atomic.Int32

// freePort is a port that nobody has now, and nobody here will be given soon.
func freePort() (int, error) {
	first := os.Getpid() * 997 % ports
	for range ports {
		port := firstPort + (first+int(handedOut.Add(1)))%ports
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, firstPort+ports)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
