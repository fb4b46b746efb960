package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// link is one way between two parts, through Toxiproxy. Upstream is the direction of
// requests: a fault there loses the request, one downstream loses the reply to a
// request that was carried out.
//
// A proxy has one toxic in its life and is replaced by another on the same port when the
// toxic ends, which closes its connections: Toxiproxy locks up where a toxic is taken
// away, or a second one added, while reset_peer or limit_data is closing a connection.
type link struct {
	name string
	addr string // where callers connect to
	api  *toxiproxy.ApiServer

	mu     sync.Mutex
	target string
	proxy  *toxiproxy.Proxy
	in     int // number of the toxic in force, 0 for none
	last   int // number given last
}

// toxic is one fault of a link.
type toxic struct {
	Kind       string         `json:"type"`   // latency, bandwidth, timeout, reset_peer, slicer, limit_data, slow_close, down
	Stream     string         `json:"stream"` // upstream or downstream; down has none
	Attributes map[string]any `json:"attributes,omitempty"`
}

func (x toxic) String() string {
	raw, _ := json.Marshal(x.Attributes)
	return x.Kind + "/" + x.Stream + string(raw)
}

// newLink opens a way to target (host:port) at a port of our own. It passes everything on
// until told otherwise.
func newLink(name string, port int, target string) (*link, error) {
	l := &link{name: name, addr: loopback(port), target: target, api: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	return l, l.open()
}

// open puts a new proxy in place of the one that was stopped; l.mu is held, or nobody
// else knows l yet. A process that is just being started holds every socket of ours until
// it runs its own program, and so the port, too.
func (l *link) open() error {
	l.proxy, l.in = toxiproxy.NewProxy(l.api, l.name, l.addr, l.target), 0
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := until(ctx, l.proxy.Start); err != nil {
		return fmt.Errorf("link %s: %w", l.name, err)
	}
	return nil
}

// add puts a toxic in force, on open connections too, in place of one that is, and returns
// what takes it away again if it is still the one.
func (l *link) add(x toxic) (undo func() error, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in != 0 {
		l.proxy.Stop()
		if err := l.open(); err != nil {
			return nil, err
		}
	}
	l.last++
	l.in = l.last
	mine := l.in
	undo = func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.in != mine {
			return nil
		}
		return l.replace()
	}
	if x.Kind == "down" {
		l.proxy.Stop()
		return undo, nil
	}
	raw, err := json.Marshal(x)
	if err != nil {
		return undo, err
	}
	if _, err := l.proxy.Toxics.AddToxicJson(bytes.NewReader(raw)); err != nil {
		return undo, fmt.Errorf("link %s: toxic %s: %w", l.name, raw, err)
	}
	return undo, nil
}

func (l *link) replace() error {
	l.proxy.Stop()
	return l.open()
}

// heal takes away whatever is in force.
func (l *link) heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == 0 {
		return nil
	}
	return l.replace()
}

// retarget leads the link elsewhere.
func (l *link) retarget(target string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	return l.replace()
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proxy.Stop()
}
