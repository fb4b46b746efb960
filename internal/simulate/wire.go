package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/simulate/fault"
)

// said is what came back from trueup, or from ImageKit.
type said struct {
	status int
	header http.Header
	body   []byte
}

// asked is one request to trueup.
type asked struct {
	method, path string
	header       http.Header
	body         []byte
}

// patience is how long a client waits for an answer.
const patience = 40 * time.Second

var errNobody = errors.New("nobody listens")

// knock sends a request to one of the processes that receive and waits for its answer. On
// the way the request may get lost, or the answer: the same to whoever sent it.
func (w *world) knock(chance uint64, r asked) (said, error) {
	p := w.pick(chance, (*slot).receives)
	if p == nil {
		return said{}, errNobody
	}
	return w.exchange(p, p.public, chance, r)
}

// operate sends a request to the operator listener of one of the processes that decide.
func (w *world) operate(chance uint64, r asked) (said, error) {
	p := w.pick(chance, (*slot).decides)
	if p == nil {
		return said{}, errNobody
	}
	r.header = http.Header{"Authorization": {"Bearer " + opsToken}, "Content-Type": {"application/json"}}
	if r.method == http.MethodPost {
		r.header.Set("Idempotency-Key", fmt.Sprintf("key-%x", chance))
	}
	return w.exchange(p, p.ops, chance, r)
}

func (w *world) exchange(p *process, to http.RoundTripper, chance uint64, r asked) (said, error) {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	there, back := w.latency(fault.Call{Door: "network", Method: r.method, Key: fmt.Sprintf("%s %x", r.path, chance)})
	if err := sleep(ctx, there); err != nil {
		return said{}, err
	}
	side := w.strike("network")
	if side == "request-lost" || p.dead.Load() {
		return said{}, errFailed
	}
	if left := time.Until(p.stalledUntil()); left > 0 && sleep(ctx, left) != nil {
		return said{}, ctx.Err()
	}
	answer, err := roundTrip(ctx, to, r)
	switch {
	case p.dead.Load() || side == "answer-lost":
		return said{}, errFailed
	case err != nil:
		return said{}, err
	}
	return answer, sleep(ctx, back)
}

func roundTrip(ctx context.Context, to http.RoundTripper, r asked) (said, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, "http://trueup.example"+r.path, bytes.NewReader(r.body))
	if err != nil {
		return said{}, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	res, err := to.RoundTrip(req)
	if err != nil {
		return said{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return said{res.StatusCode, res.Header, body}, err
}
