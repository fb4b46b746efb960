package testenv

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Link is a TCP connection's way through the test: a proxy in front of a real
// service that can be cut, stalled, or made to lose replies. A request lost and a
// reply lost look the same to the caller; only one of them did its work.
type Link struct {
	target   string
	listener net.Listener
	dropped  atomic.Int64
	running  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	mode    linkMode
	budget  int64 // request bytes still let through; below 0: no limit
	pairs   map[*pair]struct{}
}

type linkMode int

const (
	passing linkMode = iota
	stalled
	losingReplies
	severed
)

// pair is one connection: the caller's end and the service's.
type pair struct {
	caller, service net.Conn
	torn            bool // bytes were lost; it must not be used again
}

func (p *pair) close() {
	_ = p.caller.Close()
	_ = p.service.Close()
}

// Cut puts a proxy before target (host:port). It passes everything on until told
// otherwise.
func Cut(t testing.TB, target string) *Link {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	l := &Link{target: target, listener: listener, budget: -1, pairs: map[*pair]struct{}{}}
	l.changed = sync.NewCond(&l.mu)
	l.running.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.Cut()
		l.running.Wait()
	})
	return l
}

// Addr is the proxy's host:port.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// URL is u with the proxy's host and port in place of its own.
func (l *Link) URL(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return u
	}
	parsed.Host = l.Addr()
	return parsed.String()
}

// Dropped counts the reply bytes that were swallowed, by DropReplies or after
// CutAfterBytes: proof that the fault fired.
func (l *Link) Dropped() int64 { return l.dropped.Load() }

// Cut closes all connections and refuses new ones, until Restore.
func (l *Link) Cut() { l.set(severed, -1) }

// CutAfterBytes lets n more bytes of requests through, over all connections, and
// then acts as Cut.
func (l *Link) CutAfterBytes(n int64) { l.set(passing, n) }

// DropReplies passes requests on and swallows what is answered, until Restore.
func (l *Link) DropReplies() { l.set(losingReplies, -1) }

// Stall holds everything back, both ways, with connections open, until Restore.
func (l *Link) Stall() { l.set(stalled, -1) }

// Restore passes everything on again. Connections that lost bytes are closed, as a
// real one would not go on either; stalled ones go on where they were.
func (l *Link) Restore() { l.set(passing, -1) }

func (l *Link) set(m linkMode, budget int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode, l.budget = m, budget
	for p := range l.pairs {
		if m == severed || p.torn {
			p.close()
		}
	}
	l.changed.Broadcast()
}

func (l *Link) accept() {
	for {
		caller, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.serve(caller) })
	}
}

func (l *Link) serve(caller net.Conn) {
	service, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		_ = caller.Close()
		return
	}
	p := &pair{caller: caller, service: service}
	defer p.close()
	l.mu.Lock()
	refused := l.mode == severed
	l.pairs[p] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pairs, p)
		l.mu.Unlock()
	}()
	if refused {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		defer p.close()
		l.carry(p, caller, service, l.reply)
	})
	l.carry(p, service, caller, l.request)
	l.finish(p)
	back.Wait()
}

// finish ends a connection whose requests have ended. One cut after some bytes is
// ended softly: a hard close would take back, at the service, what it has not read.
func (l *Link) finish(p *pair) {
	l.mu.Lock()
	torn := p.torn
	l.mu.Unlock()
	end, ok := p.service.(*net.TCPConn)
	if !torn || !ok || end.CloseWrite() != nil {
		p.close()
	}
}

// carry moves bytes as long as allow lets it.
func (l *Link) carry(p *pair, to io.Writer, from io.Reader, allow func(*pair, int) (pass int, more bool)) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pass, more := allow(p, n)
			if pass > 0 { // even nothing cannot be written to who is gone, and what is swallowed goes on
				if _, err := to.Write(buf[:pass]); err != nil {
					return
				}
			}
			if !more {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// request decides how many of n request bytes pass, and whether the connection
// goes on.
func (l *Link) request(_ *pair, n int) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mode == stalled {
		l.changed.Wait()
	}
	switch {
	case l.mode == severed:
		return 0, false
	case l.budget < 0:
		return n, true
	case int64(n) < l.budget:
		l.budget -= int64(n)
		return n, true
	}
	pass := int(l.budget)
	l.mode, l.budget = severed, -1
	for p := range l.pairs {
		p.torn = true
		_ = p.caller.Close()
	}
	return pass, false
}

func (l *Link) reply(p *pair, n int) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mode == stalled {
		l.changed.Wait()
	}
	if l.mode == losingReplies {
		p.torn = true
	}
	switch {
	case p.torn:
		l.dropped.Add(int64(n))
		return 0, true
	case l.mode == severed:
		return 0, false
	}
	return n, true
}
