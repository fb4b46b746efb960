package campaign

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
)

// accountant holds I1 as exact integers while everything runs. The order of its looks is
// what makes them exact: first what senders were told, then the stream, then one
// snapshot of the database. An event leaves the stream only after the transaction that
// settled it, so whatever was acknowledged before the first look is in one of the other
// two, and what is in both is settled and merely not acked yet.
//
// Once an event has come to its end it is not asked about again: events that were
// acknowledged and are not over are all it keeps.
type accountant struct {
	r *rig

	mu      sync.Mutex
	waiting []check.Ack // acknowledged, or not answered, and not known to be over
	told    int64       // acknowledged so far
	relayed int         // of the rig's own log, how many were taken over
}

// sums is one look.
type sums struct {
	At                                        time.Duration
	Acknowledged, Stored                      int64
	Done, Superseded, Rejected, Dead, Pending int64
	Lost                                      int64
	Retries, Messages                         int64
	Violations                                []string
}

// note takes what a sender was told. A sender who was told nothing is no witness.
func (a *accountant) note(k check.Ack) {
	if k.Status/100 != 2 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, k)
	a.told++
}

// audit looks once.
func (a *accountant) audit(ctx context.Context) (s sums, err error) {
	e := a.evidence()
	a.mu.Lock()
	s.Acknowledged = a.told
	a.mu.Unlock()
	if e.Stream, err = collect.Stream(ctx, a.r.NATSURL(), streamPrefix); err != nil {
		return s, err
	}
	if err := a.dump(ctx, e, &s); err != nil {
		return s, err
	}
	v := check.Run(e, check.Safety)
	for _, w := range v.Violations {
		s.Violations = append(s.Violations, w.String())
	}
	s.Pending, s.Messages, s.Retries = v.Counts["I1.pending"], int64(len(e.Stream)), int64(len(e.Retries))
	s.Stored = s.Done + s.Superseded + s.Rejected + s.Dead + s.Pending
	if s.Stored < s.Acknowledged {
		s.Violations = append(s.Violations, fmt.Sprintf("I1: %d events are stored, %d were acknowledged", s.Stored, s.Acknowledged))
	}
	s.Lost = int64(len(s.Violations))
	a.over(e)
	return s, nil
}

// evidence begins with what is acknowledged and not known to be over.
func (a *accountant) evidence() *check.Evidence {
	relayed := a.r.Acks()
	for ; a.relayed < len(relayed); a.relayed++ {
		k := relayed[a.relayed]
		k.Body = nil
		a.note(k)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return &check.Evidence{
		Settings: check.Settings{AbsentConfirm: time.Second, NotFoundGrace: 3 * time.Second, ClaimWindow: 24 * time.Hour},
		Without:  []check.Invariant{check.I2, check.I3, check.I5, check.I6, check.I7, check.I8, check.I9, check.I11, check.I12, check.I13, check.I14, check.I15, check.I16},
		Acks:     append([]check.Ack{}, a.waiting...),
	}
}

// dump is the database as far as it tells of events that may not be over, and the sums
// of all others, in one snapshot.
func (a *accountant) dump(ctx context.Context, e *check.Evidence, s *sums) error {
	since := time.Now()
	for i := range e.Acks {
		if e.Acks[i].SentAt.Before(since) {
			since = e.Acks[i].SentAt
		}
	}
	var first ulid.ULID // below every event accepted since
	if err := first.SetTime(ulid.Timestamp(since.Add(-2 * time.Second))); err != nil {
		return err
	}
	return pgx.BeginTxFunc(ctx, a.r.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := eventsSince(ctx, tx, first.String(), &e.Dump); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE end_kind = 'done'), count(*) FILTER (WHERE end_kind = 'superseded'),
				count(*) FILTER (WHERE end_kind = 'rejected'), count(*) FILTER (WHERE end_kind = 'dead')
			FROM trueup.ledger WHERE source IN ('client', 'webhook')`).Scan(&s.Done, &s.Superseded, &s.Rejected, &s.Dead)
	})
}

// eventsSince reads the ends, retries and dead letters of events from the id first on;
// retries all, so that what waits is counted whole.
func eventsSince(ctx context.Context, tx pgx.Tx, first string, d *check.Dump) error {
	*d = check.Dump{Rows: []check.Row{}, States: []check.State{}, Runs: []check.Reconciliation{}, Findings: []check.Finding{},
		Audit: []check.Act{}, Fuse: &check.Fuse{}, Expired: []check.Expired{}}
	if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&d.At); err != nil {
		return err
	}
	var err error
	if d.Ledger, err = collected(ctx, tx, `SELECT id, file_id, source, user_id, end_kind, reason, coalesce(detail->>'webhookId', ''), coalesce(detail->>'deadLetter', '')
		FROM trueup.ledger WHERE id >= $1 AND end_kind <> ''`, []any{first}, func(c pgx.CollectableRow) (n check.Line, err error) {
		return n, c.Scan(&n.ID, &n.FileID, &n.Source, &n.User, &n.EndKind, &n.Reason, &n.WebhookID, &n.DeadLetter)
	}); err != nil {
		return err
	}
	if d.Retries, err = collected(ctx, tx, `SELECT event_id, file_id, source, user_id, webhook_id, dead_letter, reason FROM trueup.retries`, nil, func(c pgx.CollectableRow) (r check.Retry, err error) {
		return r, c.Scan(&r.EventID, &r.FileID, &r.Source, &r.User, &r.WebhookID, &r.DeadLetter, &r.Reason)
	}); err != nil {
		return err
	}
	d.DeadLetters, err = collected(ctx, tx, `SELECT id, event_id, file_id, state, coalesce(replay_event, '') FROM trueup.dead_letters WHERE event_id >= $1`, []any{first}, func(c pgx.CollectableRow) (l check.DeadLetter, err error) {
		return l, c.Scan(&l.ID, &l.EventID, &l.FileID, &l.State, &l.ReplayEvent)
	})
	return err
}

// collected are the rows of a query; never nil.
func collected[T any](ctx context.Context, tx pgx.Tx, sql string, args []any, scan func(pgx.CollectableRow) (T, error)) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, scan)
	if all == nil {
		all = []T{}
	}
	return all, err
}

// over forgets what has come to its end.
func (a *accountant) over(e *check.Evidence) {
	events, webhooks := map[string]bool{}, map[string]bool{}
	for i := range e.Ledger {
		if n := &e.Ledger[i]; n.EndKind != "" {
			events[n.ID] = true
			webhooks[n.WebhookID+" "+n.FileID] = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.waiting[:0]
	for i, k := range a.waiting {
		if i < len(e.Acks) {
			if id, err := eventIn(k.ReportID); err == nil && events[id.String()] || k.Door == check.Webhook && webhooks[k.WebhookID+" "+k.FileID] {
				continue
			}
		}
		left = append(left, k)
	}
	clear(a.waiting[len(left):])
	a.waiting = left
}

// left is how many acknowledged events are not known to be over.
func (a *accountant) left() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiting)
}
