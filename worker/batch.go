package worker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// batch is a set of events on their way to their ends, with what was learned on the
// way. What was asked stays known while the batch is halved.
type batch struct {
	groups []group
	// parts are what is still to be written, one transaction each; together they hold
	// every event that has not reached an end.
	parts [][]event.Pending
	// answers are what ImageKit said, by fileId; nil before it was asked.
	answers map[string]verify.Answer
	// poison is why an event is parked without being judged, by event id.
	poison map[string]error
	post   *post // where the watchdog looks
}

// settle brings every event to its end, or returns why it could not: a stop, or a
// moved turn. Outages and pauses are waited out; then ImageKit is asked again, because
// answers grow old.
func (t *turn) settle(stop context.Context, pending []event.Pending) error {
	return t.settleKnowing(stop, pending, nil)
}

// settleKnowing is settle for events of which some are known to be poison, by id.
func (t *turn) settleKnowing(stop context.Context, pending []event.Pending, poison map[string]error) error {
	if err := t.company.Acquire(stop, 1); err != nil {
		return context.Cause(stop)
	}
	defer t.company.Release(1)
	return t.settleInside(stop, pending, poison)
}

// settleInside is for those who have their share of the company.
func (t *turn) settleInside(stop context.Context, pending []event.Pending, poison map[string]error) error {
	b := &batch{groups: byFile(pending), parts: [][]event.Pending{pending}, poison: map[string]error{}}
	maps.Copy(b.poison, poison)
	leave, err := t.lanes.enter(t.running, fileIDs(b.groups))
	if err != nil {
		return err
	}
	defer leave()
	defer t.Watchdog.know(b.groups)()
	b.post = t.Watchdog.post()
	defer b.post.close()
	for {
		if err := t.gate.pass(stop); err != nil {
			return err
		}
		err := t.askAndWrite(b)
		if err == nil {
			t.gate.worked()
			return nil
		}
		if err := t.survive(stop, err); err != nil {
			return err
		}
		b.answers = nil
	}
}

// survive waits until an outage, or an operator's pause, is over and returns nil; any
// other error comes back as it is.
func (t *turn) survive(stop context.Context, err error) error {
	switch {
	case stop.Err() != nil:
		return context.Cause(stop)
	case errors.Is(err, event.ErrPaused):
		t.gate.setOperator(true, "")
		return t.gate.pass(stop)
	case errors.Is(err, event.ErrOutage):
		return t.gate.recover(stop, "database", err, t.Rows.Ping)
	case errors.Is(err, verify.ErrLibraryOutage):
		return t.gate.recover(stop, "imagekit", err, t.Look.Healthy)
	}
	return err
}

func (t *turn) askAndWrite(b *batch) error {
	if err := t.ask(b); err != nil {
		return err
	}
	for len(b.parts) > 0 {
		if err := t.writePart(b); err != nil {
			return err
		}
	}
	return nil
}

// ask asks once for each file. No event shares a look-up that was sent before the
// worker had it: the batch is complete before the first question leaves.
func (t *turn) ask(b *batch) error {
	b.answers = map[string]verify.Answer{}
	asks := t.asks(b)
	if len(asks) == 0 {
		return nil
	}
	answers, err := t.look(asks)
	if err != nil {
		return err
	}
	for i, a := range answers {
		b.answers[asks[i].FileID] = a
	}
	return nil
}

// asks are the questions of a batch. An event over which forming its question panics
// is poison, and nothing is asked for it.
func (t *turn) asks(b *batch) []verify.Ask {
	left := map[string]bool{}
	for _, part := range b.parts {
		for _, p := range part {
			left[p.ID] = b.poison[p.ID] == nil
		}
	}
	var asks []verify.Ask
	for _, g := range b.groups {
		ask, wanted := verify.Ask{FileID: g.fileID, Priority: verify.Run}, false
		for _, p := range g.events {
			if !left[p.ID] {
				continue
			}
			if err := t.step(b, p, func() { t.plant(p); ask = with(ask, p) }); err != nil {
				b.poison[p.ID] = err
				continue
			}
			wanted = true
		}
		if wanted {
			asks = append(asks, ask)
		}
	}
	return asks
}

// write settles in one transaction. A short outage is retried with the same
// observations: the fence keeps them from deciding anything they may not.
func (t *turn) write(pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End) error {
	start := t.Now()
	var settled event.Settled
	quick := retry.WithMaxRetries(3, retry.NewExponential(50*time.Millisecond))
	err := retry.Do(t.running, quick, func(ctx context.Context) error {
		var err error
		settled, err = t.Rows.Settle(ctx, t.number, pending, seen, end)
		if errors.Is(err, event.ErrOutage) {
			return retry.RetryableError(err)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.due.suggest(settled.NextDue)
	t.tell(pending, settled, t.Now().Sub(start))
	return nil
}

// tell logs one line per event and wakes those who wait for a report.
func (t *turn) tell(pending []event.Pending, settled event.Settled, took time.Duration) {
	var reports []string
	for _, p := range pending {
		end, ok := settled.Ends[p.ID]
		if !ok {
			continue
		}
		t.Metrics.settled(p, end)
		t.Logger.Log(t.running, levelOf(end), "event.settled", "event", p.ID, "source", string(p.Source), "kind", p.Kind,
			"file", p.FileID, "end", string(end.Kind), "reason", end.Reason, "after", end.After.String())
		if p.Origin == event.Client && end.Kind != event.Retry && end.Kind != event.Dead {
			reports = append(reports, p.ID)
		}
	}
	t.Metrics.batch(len(pending), settled, took)
	if t.Settled != nil && len(reports) > 0 {
		t.Settled(reports)
	}
}

// group is the events of one file in a batch: they share one look-up.
type group struct {
	fileID string
	events []event.Pending
}

// byFile groups in the order of the fileIds.
func byFile(pending []event.Pending) []group {
	at := map[string]int{}
	var groups []group
	for _, p := range pending {
		i, ok := at[p.FileID]
		if !ok {
			i = len(groups)
			at[p.FileID] = i
			groups = append(groups, group{fileID: p.FileID})
		}
		groups[i].events = append(groups[i].events, p)
	}
	slices.SortFunc(groups, func(a, b group) int {
		switch {
		case a.fileID < b.fileID:
			return -1
		case a.fileID > b.fileID:
			return 1
		}
		return 0
	})
	return groups
}

func fileIDs(groups []group) []string {
	ids := make([]string, len(groups))
	for i, g := range groups {
		ids[i] = g.fileID
	}
	return ids
}

// with adds what an event demands to the one question that serves every event of its
// file: by id as soon as one of them needs it.
func with(a verify.Ask, p event.Pending) verify.Ask {
	a.Priority = min(a.Priority, priorityOf(p))
	a.ByID = a.ByID || p.Retried || p.Source == event.Replay || p.Source == event.Reconcile || p.Kind == event.KindDeleted ||
		p.Kind == event.KindRecheck || (p.Origin == event.Webhook && p.UpdatedAt.IsZero())
	a.NewsOnly = a.NewsOnly || p.Origin == event.Client
	a.Announced = a.Announced || (p.Kind == event.KindDeleted && p.Signed())
	if p.UpdatedAt.After(a.UpdatedAt) {
		a.UpdatedAt = p.UpdatedAt
	}
	return a
}

func priorityOf(p event.Pending) verify.Priority {
	switch p.Source {
	case event.Replay:
		return verify.Replay
	case event.Reconcile:
		return verify.Run
	}
	return verify.Live
}
