package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
)

// settled are the ends of events as PostgreSQL tells of them: how often each event,
// and each webhook, is named by the ledger, the retries and the dead letters.
type settled struct {
	events, webhooks map[string]int
}

// acknowledged is what senders were told is safe.
type acknowledged struct {
	events   []string       // of reports
	webhooks map[string]int // how often each was sent, acknowledged ones only
}

func gather(senders []*sender) acknowledged {
	a := acknowledged{webhooks: map[string]int{}}
	sent := map[string]int{}
	for _, s := range senders {
		for _, k := range s.acks {
			if k.WebhookID != "" {
				sent[k.WebhookID]++
			}
			switch {
			case k.Status/100 != 2:
			case k.Door == check.Webhook:
				a.webhooks[k.WebhookID] = 0
			default:
				a.events = append(a.events, eventOf(k.ReportID))
			}
		}
	}
	for id := range a.webhooks {
		a.webhooks[id] = sent[id]
	}
	return a
}

func (a acknowledged) len() int { return len(a.events) + len(a.webhooks) }

// lost are those of which nothing is known any more; twice are those that ended more
// often than they were sent.
func (a acknowledged) compare(s settled) (lost, twice []string) {
	for _, id := range a.events {
		switch n := s.events[id]; {
		case n == 0:
			lost = append(lost, "report "+id)
		case n > 1:
			twice = append(twice, "report "+id)
		}
	}
	for id, sent := range a.webhooks {
		switch n := s.webhooks[id]; {
		case n == 0:
			lost = append(lost, "webhook "+id)
		case n > sent:
			twice = append(twice, "webhook "+id)
		}
	}
	slices.Sort(lost)
	slices.Sort(twice)
	return lost, twice
}

// ends are all ends that the database tells of; an event that was parked and is told of
// in the ledger, too, has one.
func ends(d check.Dump) settled {
	s := settled{events: map[string]int{}, webhooks: map[string]int{}}
	count := func(event, webhook string) {
		s.events[event]++
		if webhook != "" {
			s.webhooks[webhook]++
		}
	}
	for _, l := range d.Ledger {
		if l.EndKind != "" {
			count(l.ID, l.WebhookID)
		}
	}
	for _, r := range d.Retries {
		count(r.EventID, r.WebhookID)
	}
	for _, l := range d.DeadLetters {
		if s.events[l.EventID] == 0 {
			count(l.EventID, l.WebhookID)
		}
	}
	return s
}

// quiet waits until nothing is under way: the queue is empty and no retry waits.
func (s *site) quiet(ctx context.Context) error {
	var last error
	return until(ctx, func() (err error) {
		defer func() {
			if ctx.Err() != nil { // what was asked last was cut off by us
				err = errors.Join(err, last)
			}
			last = err
		}()
		var status struct {
			Queue   struct{ Waiting, Unacked int }
			Retries *struct{ Count int }
		}
		raw, err := s.operator(ctx, "/api/status", &status)
		if err != nil {
			return err
		}
		if status.Queue.Waiting+status.Queue.Unacked > 0 || status.Retries == nil || status.Retries.Count > 0 {
			return fmt.Errorf("not settled: %s", raw)
		}
		return nil
	})
}

// operator asks the operator API.
func (s *site) operator(ctx context.Context, path string, out any) (raw json.RawMessage, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.at(portOps)+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+cutOpsToken)
	resp, err := probes.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&raw); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s %s", path, resp.Status, raw)
	}
	return raw, json.Unmarshal(raw, out)
}

// staleRows says which rows are not what the library holds although an event that was
// acknowledged came after all that was done to the file. It is asked before anybody
// sends anything again, which would make good what was lost.
func staleRows(senders []*sender, truth map[string]json.RawMessage, dump check.Dump) (wrong []string, judged int) {
	rows := map[string]check.Row{}
	for _, r := range dump.Rows {
		rows[r.FileID] = r
	}
	for _, s := range senders {
		for _, f := range s.files {
			if f.told < f.changes {
				continue
			}
			judged++
			row, ok := rows[f.id]
			if err := f.judge(s.user, truth[f.id], row, ok); err != nil {
				wrong = append(wrong, fmt.Sprintf("file %s: %v", f.id, err))
			}
		}
	}
	return wrong, judged
}

// judge holds a row against its file by what the senders change; the checker holds every
// column against it later.
func (f *cutFile) judge(user string, raw json.RawMessage, row check.Row, ok bool) error {
	if f.deleted {
		if ok {
			return errors.New("deleted, and has a row")
		}
		return nil
	}
	var want struct {
		UpdatedAt time.Time `json:"updatedAt"`
		Tags      []string  `json:"tags"`
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		return err
	}
	switch {
	case !ok:
		return errors.New("no row")
	case row.RemoteUpdatedAt == nil || !row.RemoteUpdatedAt.Equal(want.UpdatedAt) || !slices.Equal(row.Tags, want.Tags):
		return fmt.Errorf("row of %v with tags %v, want %s and %v", row.RemoteUpdatedAt, row.Tags, want.UpdatedAt, want.Tags)
	case f.reported && row.UserID != user:
		return fmt.Errorf("belongs to %q, want %q", row.UserID, user)
	}
	return nil
}

// verdict is the checker's, over all that is known of a trial in which everybody has
// finished. trueup is stopped for it: the embedded queue can be read only then.
func (s *site) verdict(ctx context.Context, senders []*sender) (v check.Verdict, err error) {
	e := check.Evidence{
		Settings: check.Settings{AbsentConfirm: absentConfirm, NotFoundGrace: notFoundGrace, ClaimWindow: time.Hour, RetryMaxAge: 24 * time.Hour,
			Keys: []string{cutSeal}, Account: cutAccount, Markers: []string{cutMarker}, Skew: 20 * time.Millisecond},
		// One dump, at the end: what lies between two is other campaigns' matter.
		Without: []check.Invariant{check.I5, check.I6, check.I7, check.I8, check.I9, check.I13, check.I15},
		Hands:   []check.Hand{}, Lies: []check.Lie{},
	}
	for _, one := range senders {
		e.Acks = append(e.Acks, one.acks...)
	}
	for _, p := range s.parts {
		if p.name == "serve" || p.name == "ingest" || p.name == "worker" {
			p.stop(20 * time.Second)
		}
	}
	if s.layout.nodes == 0 {
		e.Stream, err = collect.StoppedStream(ctx, filepath.Join(s.dataDir("trueup"), "queue"), streamPrefix)
	} else {
		e.Stream, err = collect.Stream(ctx, s.natsURL(), streamPrefix)
	}
	if err != nil {
		return v, err
	}
	if e.Dump, err = collect.Database(ctx, s.databaseURL()); err != nil {
		return v, err
	}
	seen := &collect.ImageKit{Client: s.library.http, URL: s.library.url}
	if err := seen.Collect(ctx); err != nil {
		return v, err
	}
	e.Truth, e.History, e.Requests = seen.Truth, seen.History, seen.Requests
	return check.Run(&e, check.Settled), nil
}
