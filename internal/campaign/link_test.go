package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// link is one way between two parts, through Toxiproxy. Upstream is the direction of
// requests: a fault there loses the request, one downstream loses the reply to a
// request that was carried out.
type link struct {
	name  string
	proxy *toxiproxy.Proxy

	mu     sync.Mutex
	toxics map[string]bool // those in force, and whether they leave connections torn
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

// torn kinds lose bytes: what went through such a connection must not go on.
func (x toxic) torn() bool {
	switch x.Kind {
	case "timeout", "reset_peer", "limit_data", "slow_close":
		return true
	}
	return false
}

// newLink opens a way to target (host:port). It passes everything on until told
// otherwise.
func newLink(name string, port int, target string) (*link, error) {
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{name: name, proxy: toxiproxy.NewProxy(api, name, loopback(port), target), toxics: map[string]bool{}}
	return l, l.open()
}

// addr is where callers connect to.
func (l *link) addr() string { return l.proxy.Listen }

// add puts a toxic in force, on open connections too.
func (l *link) add(x toxic) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.Kind == "down" {
		l.toxics["down"] = false
		l.proxy.Stop()
		return nil
	}
	raw, err := json.Marshal(x)
	if err != nil {
		return err
	}
	w, err := l.proxy.Toxics.AddToxicJson(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("link %s: toxic %s: %w", l.name, raw, err)
	}
	l.toxics[w.Name] = x.torn()
	return nil
}

// heal takes all toxics away and opens a link that is down. Connections that lost bytes
// are closed, as real ones would not go on either.
func (l *link) heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	torn := false
	for _, t := range l.toxics {
		torn = torn || t
	}
	if len(l.toxics) > 0 {
		l.proxy.Toxics.ResetToxics(context.Background())
		clear(l.toxics)
	}
	if torn {
		l.proxy.Stop()
	}
	return l.open()
}

// open lets the link listen again. A process that is just being started holds every
// socket of ours until it runs its own program, and so the port, too.
func (l *link) open() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := until(ctx, func() error {
		if err := l.proxy.Start(); !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", l.name, err)
	}
	return nil
}

// retarget leads the link elsewhere.
func (l *link) retarget(target string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.proxy.Update(&toxiproxy.Proxy{Listen: l.proxy.Listen, Upstream: target}); err != nil {
		return fmt.Errorf("link %s: %w", l.name, err)
	}
	return l.open()
}

func (l *link) close() {
	_ = l.heal()
	l.proxy.Stop()
}
