package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Network is where addresses are taken and dialled. The zero value is an empty one.
type Network struct {
	mu        sync.Mutex // guards the rest
	listeners map[string]*listener
	ports     int // handed out for port 0, and to those who dial
}

// Listen takes an address; it is a service.Doors.Listen. Port 0 is a free one.
func (n *Network) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	at, err := n.resolve(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port == 0 {
		at.Port = n.port()
	}
	if n.listeners[at.String()] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: at, Err: syscall.EADDRINUSE}
	}
	l := &listener{network: n, addr: at, calls: make(chan net.Conn), closed: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	n.listeners[at.String()] = l
	return l, ctx.Err()
}

// Dial connects to who listens at addr.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	at, err := n.resolve(addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	n.mu.Lock()
	l := n.listeners[at.String()]
	from := &net.TCPAddr{IP: at.IP, Port: n.port()}
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Addr: at, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := net.Pipe()
	select {
	case l.calls <- &conn{Conn: far, local: at, remote: from}:
		return &conn{Conn: near, local: from, remote: at}, nil
	case <-l.closed:
		err = refused
	case <-ctx.Done():
		err = &net.OpError{Op: "dial", Net: network, Addr: at, Err: ctx.Err()}
	}
	return nil, errors.Join(err, near.Close(), far.Close())
}

// Transport is a client's side; close its idle connections at the end.
func (n *Network) Transport() *http.Transport {
	return &http.Transport{DialContext: n.Dial, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
}

// port is a number that no other has; mu is held.
func (n *Network) port() int {
	n.ports++
	return 20_000 + n.ports
}

func (n *Network) resolve(addr string) (*net.TCPAddr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("port %q is no number", port)
	}
	ip := net.ParseIP(host)
	if ip == nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return &net.TCPAddr{IP: ip, Port: number}, nil
}

type listener struct {
	network *Network
	addr    *net.TCPAddr
	calls   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		delete(l.network.listeners, l.addr.String())
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// conn is one end of a pipe, with addresses.
type conn struct {
	net.Conn
	local, remote net.Addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }
