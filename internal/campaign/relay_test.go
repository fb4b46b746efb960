package campaign

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// relay stands where a load balancer would, between ImageKit's webhooks and the
// ingests. It keeps what each delivery was answered, and loses, repeats or holds back
// deliveries as it is told.
type relay struct {
	r      *rig
	ways   []*client
	server *http.Server
	addr   string
	turn   atomic.Int64
	done   chan struct{}

	mu   sync.Mutex
	mood mood
}

// mood is how badly the way behaves. Roll draws from the schedule's own dice.
type mood struct {
	Drop, Twice, Late float64       // shares of deliveries
	By                time.Duration // how late at most
	Roll              func() float64
}

func (r *rig) addHooks() error {
	h := &relay{r: r, done: make(chan struct{})}
	for i, addr := range r.public {
		way, err := r.way(fmt.Sprintf("webhook-ingest%d", i+1), addr)
		if err != nil {
			return err
		}
		h.ways = append(h.ways, newClient(way))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h.addr = l.Addr().String()
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { defer close(h.done); _ = h.server.Serve(l) }()
	r.hooks = h
	return r.calmSettings()
}

// calmSettings are the emulator's at the start: a sender that tries again soon, no
// limit on calls.
func (r *rig) calmSettings() error {
	knobs := map[string]any{
		"rateLimit": map[string]any{"perSecond": 0, "burst": 0}, "writeRateLimit": map[string]any{"perSecond": 0, "burst": 0},
		"webhooks": map[string]any{"enabled": true, "url": "http://" + r.hooks.addr + "/webhooks/imagekit", "timeout": "6s",
			"retrySchedule": []string{"300ms", "700ms", "1500ms", "3s", "3s", "3s"}},
	}
	if err := r.Settings(knobs); err != nil {
		return err
	}
	return r.Settings(r.opts.Settings)
}

// behave sets the mood; the zero mood is a perfect way.
func (h *relay) behave(m mood) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mood = m
}

// fate is what becomes of one delivery.
func (h *relay) fate() (drop, twice bool, late time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.mood
	if m.Roll == nil {
		return false, false, 0
	}
	drop, twice = m.Roll() < m.Drop, m.Roll() < m.Twice
	if m.Roll() < m.Late {
		late = time.Duration(m.Roll() * float64(m.By))
	}
	return drop, twice, late
}

func (h *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 2<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	drop, twice, late := h.fate()
	if late > 0 {
		h.r.hit("webhook/delayed")
		t := time.NewTimer(late)
		select {
		case <-t.C:
		case <-req.Context().Done(): // the sender will try again
			t.Stop()
			return
		}
	}
	if drop {
		// ImageKit believes that it arrived, and nobody will ever hear of it.
		h.r.hit("webhook/dropped")
		w.WriteHeader(http.StatusOK)
		return
	}
	a := h.forward(req, body)
	if twice {
		h.r.hit("webhook/duplicate")
		h.forward(req, body)
	}
	if a.status == 0 {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func (h *relay) forward(req *http.Request, body []byte) answered {
	way := h.ways[int(h.turn.Add(1))%len(h.ways)]
	ack := check.Ack{Door: check.Webhook, SentAt: time.Now(), Genuine: true, Body: body}
	var said struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Data struct {
			FileID string `json:"fileId"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &said); err == nil {
		ack.Kind, ack.WebhookID, ack.FileID = said.Type, said.ID, said.Data.FileID
	}
	header := http.Header{}
	for _, k := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Ik-Signature", "User-Agent"} {
		if v := req.Header.Values(k); len(v) > 0 {
			header[http.CanonicalHeaderKey(k)] = v
		}
	}
	a := way.send(req.Context(), http.MethodPost, "/webhooks/imagekit", header, body)
	if a.status != 0 {
		ack.Status, ack.AnsweredAt = a.status, time.Now()
	}
	h.r.noteAcks(ack)
	return a
}

func (h *relay) close() {
	err := h.server.Close()
	<-h.done
	if err != nil && !errors.Is(err, net.ErrClosed) {
		h.r.t.Errorf("campaign: %v", err)
	}
	for _, w := range h.ways {
		w.close()
	}
}
