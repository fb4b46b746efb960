package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/check"
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

// readSettled reads the ends in one snapshot.
func readSettled(ctx context.Context, db *pgx.Conn) (settled, error) {
	s := settled{events: map[string]int{}, webhooks: map[string]int{}}
	rows, err := db.Query(ctx, `
		SELECT id, coalesce(detail->>'webhookId', '') FROM trueup.ledger WHERE end_kind <> ''
		UNION ALL SELECT event_id, webhook_id FROM trueup.retries
		UNION ALL SELECT event_id, webhook_id FROM trueup.dead_letters d WHERE NOT EXISTS (SELECT FROM trueup.ledger l WHERE l.id = d.event_id AND l.end_kind <> '')`)
	if err != nil {
		return s, err
	}
	var event, webhook string
	_, err = pgx.ForEachRow(rows, []any{&event, &webhook}, func() error {
		s.events[event]++
		if webhook != "" {
			s.webhooks[webhook]++
		}
		return nil
	})
	return s, err
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

// rowSeen is as much of a row as tells whether it is the file's newest state.
type rowSeen struct {
	updated time.Time
	tags    []string
	user    string
}

func readRows(ctx context.Context, db *pgx.Conn) (map[string]rowSeen, error) {
	rows, err := db.Query(ctx, `SELECT file_id, remote_updated_at, tags, user_id FROM public.imagekit_files`)
	if err != nil {
		return nil, err
	}
	all := map[string]rowSeen{}
	var id string
	var r rowSeen
	_, err = pgx.ForEachRow(rows, []any{&id, &r.updated, &r.tags, &r.user}, func() error {
		r.tags = slices.Clone(r.tags)
		all[id] = r
		return nil
	})
	return all, err
}

// wrongRows says where the table is not what the library holds. everything: all
// senders have finished; else a file counts only if an event that was acknowledged came
// after all that was done to it.
func wrongRows(senders []*sender, truth map[string]json.RawMessage, rows map[string]rowSeen, everything bool) (wrong []string, judged int) {
	for id := range rows {
		if _, ok := truth[id]; !ok && everything {
			wrong = append(wrong, "a row for "+id+", which ImageKit does not have")
		}
	}
	for _, s := range senders {
		for _, f := range s.files {
			if f.told < f.changes {
				continue
			}
			judged++
			if err := f.judge(s.user, truth[f.id], rows); err != nil {
				wrong = append(wrong, fmt.Sprintf("file %s: %v", f.id, err))
			}
		}
	}
	slices.Sort(wrong)
	return wrong, judged
}

func (f *cutFile) judge(user string, raw json.RawMessage, rows map[string]rowSeen) error {
	row, ok := rows[f.id]
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
	case !row.updated.Equal(want.UpdatedAt) || !slices.Equal(row.tags, want.Tags):
		return fmt.Errorf("row of %s with tags %v, want %s and %v", row.updated, row.tags, want.UpdatedAt, want.Tags)
	case f.reported && row.user != user:
		return fmt.Errorf("belongs to %q, want %q", row.user, user)
	}
	return nil
}
