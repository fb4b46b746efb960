package emulator

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"sync"
	"time"
)

// hook is one webhook that has not arrived yet.
type hook struct {
	ID     string          `json:"id"` // of the body
	FileID string          `json:"fileId"`
	Body   json.RawMessage `json:"body"`
	Due    time.Time       `json:"due"`
	Tries  int             `json:"tries,omitempty"`
	Copies int             `json:"copies,omitempty"` // how often to send it again after it arrived

	queued int // place in its lane's heap is by due time, then by this
}

// envelope is what every webhook's body has.
type envelope struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
	Request   any    `json:"request,omitempty"`
	Data      any    `json:"data"`
}

// announce is the change that has a webhook sent, or none: webhooks are off, or
// this one is dropped.
func (e *Emulator) announce(kind, fileID string, request, data any) []change {
	w := &e.settings.Load().Webhooks
	if !w.Enabled || w.URL == "" || e.WebhookSecret == "" {
		return nil
	}
	if e.dice.happens(w.DropRate) {
		e.stats.dropped.Add(1)
		return nil
	}
	now := e.Now()
	h := &hook{ID: newUUID(), FileID: fileID, Due: now.Add(time.Duration(w.Delay))}
	body, err := encode(envelope{Type: kind, ID: h.ID, CreatedAt: stampText(now.UnixMilli()), Request: request, Data: data})
	if err != nil {
		e.Logger.Error("emulator: webhook not made", "kind", kind, "error", err)
		return nil
	}
	h.Body = body[:len(body)-1]
	if e.dice.happens(w.DuplicateRate) {
		h.Copies = 1
		e.stats.duplicated.Add(1)
	}
	if w.Reorder {
		h.Due = h.Due.Add(time.Duration(e.dice.roll() * float64(w.ReorderWithin)))
	}
	return []change{{Hook: h}}
}

func (e *Emulator) announceCreated(r *record, o *options) []change {
	changes := e.announce("file.created", r.ID, nil, e.current(r))
	if o.queued() {
		about := map[string]any{"x_request_id": newUUID(), "transformation": o.pre}
		changes = append(changes, e.announce("upload.pre-transform.success", r.ID, about, e.uploadView(r, &options{}))...)
	}
	return changes
}

func (e *Emulator) announceUpdated(r *record) []change {
	return e.announce("file.updated", r.ID, nil, e.current(r))
}

// announceVersion tells of an overwrite.
func (e *Emulator) announceVersion(r *record) (changes []change) {
	w := &e.settings.Load().Webhooks
	if w.VersionEvents {
		changes = e.announce("file-version.created", r.ID, nil, e.view(r, &r.version, w.VersionEventType))
	}
	if w.OverwriteAlso || !w.VersionEvents {
		changes = append(changes, e.announceUpdated(r)...)
	}
	return changes
}

func (e *Emulator) announceVersionDeleted(r *record, versionID string) []change {
	if !e.settings.Load().Webhooks.VersionEvents {
		return nil
	}
	return e.announce("file-version.deleted", r.ID, nil, map[string]string{"fileId": r.ID, "versionId": versionID})
}

func (e *Emulator) announceDeleted(r *record) (changes []change) {
	if e.settings.Load().Webhooks.DeleteTellsOfParts {
		for _, v := range r.Earlier {
			changes = append(changes, e.announceVersionDeleted(r, v.ID)...)
		}
		changes = append(changes, e.announceVersionDeleted(r, r.version.ID)...)
	}
	return append(changes, e.announce("file.deleted", r.ID, nil, map[string]string{"fileId": r.ID})...)
}

// sender carries webhooks. Those of one file go through one lane, one after the
// other, so that nothing overtakes unless a retry, a delay or reorder makes it; a
// webhook that fails goes back with a later due time and blocks nobody.
type sender struct {
	e      *Emulator
	client *http.Client
	lanes  [16]*lane
}

type lane struct {
	wake chan struct{} // capacity 1: something was added

	mu    sync.Mutex // guards the two below
	due   dueHeap
	added int
}

func newSender(e *Emulator) *sender {
	way := e.Sender
	if way == nil {
		way = &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second}
	}
	s := &sender{e: e, client: &http.Client{
		Transport:     way,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for i := range s.lanes {
		s.lanes[i] = &lane{wake: make(chan struct{}, 1)}
	}
	for _, h := range e.lib.hooks {
		s.add(h)
	}
	return s
}

// add takes a webhook that is on disk.
func (s *sender) add(h *hook) {
	sum := fnv.New32a()
	_, _ = io.WriteString(sum, h.FileID)
	l := s.lanes[sum.Sum32()%uint32(len(s.lanes))]
	l.mu.Lock()
	l.added++
	h.queued = l.added
	heap.Push(&l.due, h)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// forget drops what waits; the library forgets it too.
func (s *sender) forget() {
	for _, l := range s.lanes {
		l.mu.Lock()
		l.due = nil
		l.mu.Unlock()
	}
}

func (s *sender) run(ctx context.Context) {
	var lanes sync.WaitGroup
	for _, l := range s.lanes {
		lanes.Go(func() { s.drain(ctx, l) })
	}
	lanes.Wait()
	s.client.CloseIdleConnections()
}

func (s *sender) drain(ctx context.Context, l *lane) {
	for ctx.Err() == nil {
		h, wait := l.next(s.e.Now())
		if h != nil {
			s.deliver(ctx, h)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// next is the webhook to send now, or how long there is none.
func (l *lane) next(now time.Time) (*hook, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.due) == 0 {
		return nil, time.Hour
	}
	if wait := l.due[0].Due.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&l.due).(*hook), 0
}

// deliver makes one attempt and decides what comes after it.
func (s *sender) deliver(ctx context.Context, h *hook) {
	w := &s.e.settings.Load().Webhooks
	if !w.Enabled || w.URL == "" {
		s.e.note(change{DropHook: h.ID})
		return
	}
	s.e.stats.sent.Add(1)
	line := delivered{At: s.e.Now(), ID: h.ID, FileID: h.FileID, Try: h.Tries + 1, Body: h.Body}
	status, err := s.post(ctx, w, h)
	line.Status, line.Took = status, Duration(s.e.Now().Sub(line.At))
	if err != nil {
		line.Error = err.Error()
	}
	s.e.stats.deliveries.add(line)
	if ctx.Err() != nil && err != nil {
		return // it stays on disk and is sent after the next start
	}
	if err == nil {
		s.e.stats.acked.Add(1)
	} else {
		s.e.stats.failed.Add(1)
		s.e.Logger.Debug("emulator: webhook failed", "id", h.ID, "try", h.Tries+1, "error", err)
	}
	s.settle(w, h, err)
}

func (s *sender) settle(w *WebhookSettings, h *hook, err error) {
	next := *h
	switch {
	case err == nil && h.Copies == 0:
		s.e.note(change{DropHook: h.ID})
		return
	case err == nil:
		next.Copies--
	case h.Tries >= len(w.RetrySchedule):
		s.e.stats.gave.Add(1)
		s.e.Logger.Warn("emulator: webhook given up", "id", h.ID, "file", h.FileID, "tries", h.Tries+1, "error", err)
		s.e.note(change{DropHook: h.ID})
		return
	default:
		next.Due = s.e.Now().Add(time.Duration(w.RetrySchedule[h.Tries]))
		next.Tries++
		s.e.stats.scheduled.Add(1)
	}
	if s.e.again(&next) {
		s.add(&next)
	}
}

// again keeps a webhook's progress, unless a reset has forgotten it meanwhile.
func (e *Emulator) again(h *hook) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lib.hooks[h.ID] == nil {
		return false
	}
	if _, err := e.commit([]change{{Hook: h}}); err != nil {
		e.Logger.Error("emulator: progress not stored", "error", err)
	}
	return true
}

// post sends it once: the same body and webhook-id each time, a fresh signature.
func (s *sender) post(ctx context.Context, w *WebhookSettings, h *hook) (status int, err error) {
	if w.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(w.Timeout))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(h.Body))
	if err != nil {
		return 0, err
	}
	req.Header = w.sign(s.e.WebhookSecret, "msg_"+h.ID, h.Body, s.e.Now())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "ImageKit-emulator")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("answered %s", resp.Status)
	}
	return resp.StatusCode, nil
}

// dueHeap has the webhook that is due first on top.
type dueHeap []*hook

func (d dueHeap) Len() int { return len(d) }
func (d dueHeap) Less(i, j int) bool {
	return cmp.Or(d[i].Due.Compare(d[j].Due), cmp.Compare(d[i].queued, d[j].queued)) < 0
}
func (d dueHeap) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *dueHeap) Push(x any)   { *d = append(*d, x.(*hook)) }
func (d *dueHeap) Pop() any {
	old := *d
	h := old[len(old)-1]
	*d = old[:len(old)-1]
	return h
}
