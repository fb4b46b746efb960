package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// senders are the clients and ImageKit's webhook sender of a run: persistent, as ours
// are told to be. What was not answered 2xx is sent again until it is; what was, never.
type senders struct {
	plan   *plan
	files  *catalogue
	keys   keys
	doors  []string // of each ingest
	client *http.Client
	tokens []string // by user
	stream jetstream.JetStream
	told   told
}

// told is what the senders were answered, as little of it as judging needs.
type told struct {
	mu sync.Mutex // guards the rest
	// reports are the reports that were acknowledged: the event's id out of the answer,
	// and which event it was.
	reports []ackedReport
	// acked counts, by distinct event, the copies that were acknowledged, and unknown the
	// tries that were not, and may be stored all the same.
	acked, unknown []uint16
	events         int64 // acknowledged in all
	refused        map[int]int64
}

type ackedReport struct {
	event ulid.ULID
	sent  uint32
}

// batch is one request: up to a hundred reports of a user, one webhook, or one message
// put on the stream itself.
type batch struct {
	door   door
	user   int
	events []int // by their numbers in the plan, copies apart
}

const maxReportsInArray = 100

func newSenders(p *plan, c *catalogue, r *rig) (*senders, func(), error) {
	nc, err := nats.Connect(r.NATSURL(), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	s := &senders{plan: p, files: c, keys: r.keys, doors: doorsOf(r), stream: js,
		client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}},
		told:   told{acked: make([]uint16, p.distinct), unknown: make([]uint16, p.distinct), refused: map[int]int64{}}}
	for user := range p.users {
		token, err := r.keys.token(userName(user), 6*time.Hour)
		if err != nil {
			nc.Close()
			return nil, nil, err
		}
		s.tokens = append(s.tokens, token)
	}
	return s, func() { s.client.CloseIdleConnections(); nc.Close() }, nil
}

// doorsOf are the ingests' addresses: clients know them all.
func doorsOf(r *rig) []string {
	var doors []string
	for _, c := range r.clients {
		doors = append(doors, c.base)
	}
	return doors
}

func userName(user int) string { return fmt.Sprintf("user-%02d", user) }

// token is a signed-in user's.
func (k keys) token(user string, lasts time.Duration) (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "iss": k.issuer, "aud": k.audience,
		"iat": now.Unix(), "exp": now.Add(lasts).Unix()}).SignedString([]byte(k.jwt))
}

// sendAll sends the whole plan in its order and returns when all of it is acknowledged.
// pace is asked before each request and may hold it back.
func (s *senders) sendAll(ctx context.Context, pace func(ctx context.Context, events int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	requests := make(chan batch, 32)
	g.Go(func() error {
		defer close(requests)
		return s.plan.requests(func(b batch) error {
			if err := pace(ctx, len(b.events)); err != nil {
				return err
			}
			select {
			case requests <- b:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for range 64 {
		g.Go(func() error {
			for b := range requests {
				if err := s.insist(ctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// requests packs the plan's events, in their order, into requests. Reports wait until
// their user has a hundred, so they move by a little more.
func (p *plan) requests(each func(batch) error) error {
	waiting := make([][]int, p.users)
	for i := range p.n {
		k := p.at(i)
		h := p.event(p.distinctOf(k))
		if h.door != byReport {
			if err := each(batch{door: h.door, events: []int{k}}); err != nil {
				return err
			}
			continue
		}
		waiting[h.user] = append(waiting[h.user], k)
		if len(waiting[h.user]) == maxReportsInArray {
			if err := each(batch{user: h.user, events: waiting[h.user]}); err != nil {
				return err
			}
			waiting[h.user] = nil
		}
	}
	for user, events := range waiting {
		if len(events) > 0 {
			if err := each(batch{user: user, events: events}); err != nil {
				return err
			}
		}
	}
	return nil
}

// insist sends one request until it is acknowledged.
func (s *senders) insist(ctx context.Context, b batch) error {
	for try := 0; ; try++ {
		err := s.try(ctx, b, try)
		var final *wrongAnswer
		if err == nil || ctx.Err() != nil || errors.As(err, &final) {
			return err
		}
		again := time.NewTimer(min(time.Duration(try+1)*100*time.Millisecond, time.Second))
		if !comes(ctx, again.C) {
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

// wrongAnswer is one that sending again will not better.
type wrongAnswer struct{ said string }

func (w *wrongAnswer) Error() string { return w.said }

func (s *senders) try(ctx context.Context, b batch, try int) error {
	if b.door == byStream {
		return s.junk(ctx, b)
	}
	r, err := s.request(ctx, b, try)
	if err != nil {
		return &wrongAnswer{err.Error()}
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.told.unanswered(s.plan, b, 0)
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	want := http.StatusAccepted
	if b.door == byWebhook {
		want = http.StatusOK
	}
	switch {
	case err != nil:
		s.told.unanswered(s.plan, b, 0)
		return err
	case resp.StatusCode == http.StatusServiceUnavailable:
		s.told.unanswered(s.plan, b, resp.StatusCode)
		return fmt.Errorf("%s: %.200s", resp.Status, raw)
	case resp.StatusCode != want:
		return &wrongAnswer{fmt.Sprintf("%s %s: %s: %.300s", r.Method, r.URL, resp.Status, raw)}
	case b.door == byWebhook:
		return s.told.acknowledged(s.plan, b, nil)
	}
	ids, err := s.eventIDs(b, raw)
	if err != nil {
		return &wrongAnswer{err.Error()}
	}
	return s.told.acknowledged(s.plan, b, ids)
}

func (s *senders) request(ctx context.Context, b batch, try int) (*http.Request, error) {
	path, body := "/webhooks/imagekit", s.bodyOf(b.events[0])
	if b.door == byReport {
		path = "/save-metadata"
		parts := make([][]byte, len(b.events))
		for i, k := range b.events {
			parts[i] = s.bodyOf(k)
		}
		body = append(append([]byte{'['}, bytes.Join(parts, []byte{','})...), ']')
	}
	door := s.doors[(b.events[0]+try)%len(s.doors)]
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, door+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if b.door == byReport {
		r.Header.Set("Authorization", "Bearer "+s.tokens[b.user])
		return r, nil
	}
	r.Header.Set("User-Agent", "ImageKit.io")
	for name, values := range signed(s.keys.webhook, fmt.Sprint("msg_", b.events[0]), body, time.Now()) {
		r.Header[name] = values
	}
	return r, nil
}

func (s *senders) bodyOf(k int) []byte {
	return s.plan.body(s.files, s.plan.event(s.plan.distinctOf(k)))
}

// eventIDs reads the answer to an array of reports; it has to name the files in their
// order.
func (s *senders) eventIDs(b batch, raw []byte) ([]ulid.ULID, error) {
	var a struct {
		Success bool
		Reports []struct{ FileID, ReportID string }
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("the answer to %d reports is %.300s: %w", len(b.events), raw, err)
	}
	if !a.Success || len(a.Reports) != len(b.events) {
		return nil, fmt.Errorf("the answer to %d reports is %.300s", len(b.events), raw)
	}
	ids := make([]ulid.ULID, len(b.events))
	for i, r := range a.Reports {
		if want := s.files.id(s.plan.event(s.plan.distinctOf(b.events[i])).file); r.FileID != want {
			return nil, fmt.Errorf("report %d of the answer is of file %s, not of %s", i+1, r.FileID, want)
		}
		id, err := eventIn(r.ReportID)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

// eventIn is the event's id that stands in a report id: rp_<ULID>_<seal>.
func eventIn(reportID string) (ulid.ULID, error) {
	parts := strings.SplitN(reportID, "_", 3)
	if len(parts) != 3 || parts[0] != "rp" {
		return ulid.ULID{}, fmt.Errorf("report id %q is not of the form rp_<event>_<seal>", reportID)
	}
	return ulid.ParseStrict(parts[1])
}

// junk puts bytes that are no envelope where only ingest should. The server drops a
// second copy by its message id, so one event is one message.
func (s *senders) junk(ctx context.Context, b batch) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := s.stream.PublishMsg(ctx, &nats.Msg{Subject: streamPrefix + ".events", Data: s.bodyOf(b.events[0])},
		jetstream.WithMsgID(fmt.Sprint("junk-", s.plan.seed, "-", b.events[0])))
	if err != nil {
		s.told.unanswered(s.plan, b, 0)
		return err
	}
	return s.told.acknowledged(s.plan, b, nil)
}

func (t *told) acknowledged(p *plan, b batch, ids []ulid.ULID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events += int64(len(b.events))
	for i, k := range b.events {
		t.acked[p.distinctOf(k)]++
		if ids != nil {
			t.reports = append(t.reports, ackedReport{ids[i], uint32(k)})
		}
	}
	return nil
}

func (t *told) unanswered(p *plan, b batch, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[status]++
	for _, k := range b.events {
		t.unknown[p.distinctOf(k)]++
	}
}

// count is how many events have been acknowledged so far.
func (t *told) count() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events
}
