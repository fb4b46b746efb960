package bench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/bench/load"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/worker/verify"
)

// idleRate is how often a webhook comes to a service that is idle otherwise; each slice
// takes as long as it needs for latencyFiles.
const (
	idleRate     = 10.0
	latencyFiles = 100
)

// direct is the shortest way there is, as a handler without a queue would go it: look
// the file up, write its row, answer. Nothing is stored before, shared or judged.
type direct struct {
	*queue.Queue
	library verify.Library
	bare    *upsert
}

func (d direct) Publish(ctx context.Context, events []event.Event) error {
	for _, e := range events {
		answer, err := d.library.Details(ctx, e.FileID)
		if err != nil {
			return fmt.Errorf("%w: %w", event.ErrNotAccepted, err)
		}
		if err := d.bare.write(ctx, bareRowsOf(answer.Snapshots)); err != nil {
			return fmt.Errorf("%w: %w", event.ErrNotAccepted, err)
		}
	}
	return nil
}

func bareRowsOf(snapshots []file.Snapshot) *bareRows {
	var r bareRows
	for _, s := range snapshots {
		r.add(s.ID, s.CreatedAt)
	}
	return &r
}

// latency measures from the moment a webhook is due to the moment its row is there for
// others to read, against the direct way.
func (s *stage) latency(ctx context.Context) error {
	library, err := s.account(ctx)
	if err != nil {
		return err
	}
	defer func() { s.check(library.close()) }()
	database, err := s.database(ctx)
	if err != nil {
		return err
	}
	w, err := s.service(ctx, database, library)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.begin(ctx, 0); err != nil {
		return err
	}
	bare, err := newUpsert(ctx, database)
	if err != nil {
		return err
	}
	defer bare.pool.Close()
	short, q, err := s.ingestOn(ctx, nil)
	if err != nil {
		return err
	}
	defer q.Close()
	short.stop()
	if short, err = s.receive(ctx, direct{q, w.doors.Library, bare}); err != nil {
		return err
	}
	defer short.stop()

	one := func(address string) func(context.Context, int) (sample, error) {
		return func(ctx context.Context, round int) (sample, error) {
			return s.visible(ctx, database, library, address, round)
		}
	}
	got, err := s.rounds(ctx, contender{"webhook to row, p50 ms", one(w.public)}, contender{"direct, p50 ms", one(short.public)})
	if err != nil {
		return err
	}
	s.add(compared("webhook to row visible, idle, p50", "ms", got.quantiles(0, 0.5), got.quantiles(1, 0.5), valueAtMost(20)))
	f := compared("webhook to row visible, idle, p99", "ms", got.quantiles(0, 0.99), got.quantiles(1, 0.99), valueAtMost(60))
	// A hundred each know little of their p99: all of them together decide.
	ours, theirs := got.whole(0).Quantile(0.99).Seconds()*1000, got.whole(1).Quantile(0.99).Seconds()*1000
	met := valueAtMost(60).met(ours)
	f.Value, f.Ceiling, f.Ratio, f.Met = known(ours), known(theirs), known(ours/theirs), &met
	s.add(f)
	s.note("webhook to row: %d arrivals, %.0f a second at random, looked for every half millisecond; the direct way has no queue, no fence and no ledger of its own", got.whole(0).Count(), idleRate)
	return nil
}

// visible sends a webhook for each of some new files and waits for the rows.
func (s *stage) visible(ctx context.Context, database string, library *account, address string, round int) (sample, error) {
	files, err := library.generate(ctx, 2*latencyFiles)
	if err != nil {
		return sample{}, err
	}
	j := load.Job{
		Kind: load.Webhook, Address: address, Secret: benchSecret, Seed: s.Seed<<16 + uint64(round), Connections: 8,
		Rate: idleRate, Warm: time.Second, For: time.Duration(latencyFiles / idleRate * float64(time.Second)), Database: database,
	}
	for _, f := range files {
		j.Files = append(j.Files, f.ID)
	}
	r, err := s.load(ctx, j)
	if err != nil {
		return sample{}, err
	}
	if err := r.Only(http.StatusOK); err != nil {
		return sample{}, err
	}
	if n := int64(r.Visible.Count()); n != r.Accepted() {
		return sample{}, fmt.Errorf("%d of %d rows were seen", n, r.Accepted())
	}
	return sample{value: r.Visible.Quantile(0.5).Seconds() * 1000, latency: &r.Visible}, nil
}
