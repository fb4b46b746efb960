package campaign

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// freePort is a port below those that the kernel hands out to callers: a server that is
// down for a moment must find its port free when it comes back.
func freePort() (int, error) {
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port between 10000 and 32000")
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
