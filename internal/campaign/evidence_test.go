package campaign

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
)

// settings are what this installation was told, for the checker.
func (r *rig) settings() check.Settings {
	during := func(name string) time.Duration {
		d, err := time.ParseDuration(r.env[name])
		if err != nil {
			r.t.Fatalf("%s: %v", name, err)
		}
		return d
	}
	return check.Settings{
		AbsentConfirm: during("TRUEUP_ABSENT_CONFIRM"), NotFoundGrace: during("TRUEUP_NOT_FOUND_GRACE"), ReconcileEvery: during("TRUEUP_RECONCILE_EVERY"),
		ClaimWindow: time.Hour, RetryMaxAge: 24 * time.Hour, ReportRetention: 30 * 24 * time.Hour,
		Keys: []string{r.keys.seal}, Account: r.env["TRUEUP_ACCOUNT"], Markers: []string{senderWord},
		Skew: 20 * time.Millisecond, // one clock, read at different moments
	}
}

// Evidence gathers all that is known of the installation since it was started, around
// every link. I13 is left out: see obeyed.
func (r *rig) Evidence(ctx context.Context) (*check.Evidence, error) {
	if r.seen == nil {
		r.seen = &collect.ImageKit{Client: libraryClient, URL: r.direct}
	}
	e := &check.Evidence{Settings: r.settings(), Without: []check.Invariant{check.I13}, Acks: r.Acks()}
	var err error
	if e.Stream, err = collect.Stream(ctx, r.NATSURL(), streamPrefix); err != nil {
		return nil, err
	}
	if e.Dump, err = collect.Database(ctx, r.pg.url()); err != nil {
		return nil, err
	}
	if err := r.seen.Collect(ctx); err != nil {
		return nil, err
	}
	e.Truth, e.History, e.Requests = r.seen.Truth, r.seen.History, r.seen.Requests
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Hands, e.Lies = append([]check.Hand{}, r.hands...), append([]check.Lie{}, r.lies...)
	return e, nil
}

// Judge compares what stands now with what stood at the last judgement, and all of it
// with what had to become of it.
func (r *rig) Judge(ctx context.Context, phase check.Phase) (check.Verdict, error) {
	e, err := r.Evidence(ctx)
	if err != nil {
		return check.Verdict{}, err
	}
	if r.watch == nil {
		r.watch = check.NewWatch()
	}
	r.watch.Step(e)
	return r.watch.Verdict(e, phase), nil
}

// broken is a verdict's violations as an error; nil when there are none.
func broken(v check.Verdict) error {
	if v.OK() {
		return nil
	}
	var all []string
	for _, x := range v.Violations[:min(len(v.Violations), 12)] {
		all = append(all, x.String())
	}
	return fmt.Errorf("%d violations: %s", len(v.Violations), strings.Join(all, "\n  "))
}

// obeyed is I13 over the requests since a moment. It can be judged only where an answer
// reaches the worker at once; flight is how long it may take.
func (r *rig) obeyed(since time.Time, flight time.Duration) check.Verdict {
	e := check.Evidence{Settings: r.settings(), Starts: r.turns(), Requests: []check.Request{}}
	e.Settings.Flight = flight
	for _, q := range r.seen.Requests {
		if !q.At.Before(since) {
			e.Requests = append(e.Requests, q)
		}
	}
	for i := range 16 {
		if inv := check.Invariant(fmt.Sprintf("I%d", i+1)); inv != check.I13 {
			e.Without = append(e.Without, inv)
		}
	}
	return check.Run(&e, check.Settled)
}

// turns are the moments at which some worker became the active one: it cannot know what
// ImageKit told another.
func (r *rig) turns() (all []time.Time) {
	for name, u := range r.units {
		if !strings.HasPrefix(name, "worker") {
			continue
		}
		for line := range strings.Lines(u.said()) {
			var l struct {
				Time time.Time `json:"time"`
				Msg  string    `json:"msg"`
			}
			if strings.Contains(line, "worker.turn_begun") && json.Unmarshal([]byte(line), &l) == nil {
				all = append(all, l.Time)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}
