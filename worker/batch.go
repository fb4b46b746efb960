package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// attempt looks up every file of the batch and settles it. It returns nil only
// after the commit. Outages are waited out; whatever else goes wrong is returned.
func (t *turn) attempt(stop context.Context, pending []event.Pending) error {
	groups := byFile(pending)
	leave, err := t.lanes.enter(t.running, fileIDs(groups))
	if err != nil {
		return err
	}
	defer leave()
	for {
		if err := t.gate.pass(stop); err != nil {
			return err
		}
		err := t.lookAndWrite(pending, groups)
		if err == nil {
			t.gate.worked()
			return nil
		}
		if err := t.survive(stop, err); err != nil {
			return err
		}
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

func (t *turn) lookAndWrite(pending []event.Pending, groups []group) error {
	answers, err := t.lookUp(groups)
	if err != nil {
		return err
	}
	var seen []file.Observation
	for _, a := range answers {
		if a.Observation != nil {
			seen = append(seen, *a.Observation)
		}
	}
	return t.write(pending, seen, func(p event.Pending, r file.Result) event.End {
		return t.Table.End(p, answers[p.FileID], r)
	})
}

// lookUp asks once for each file. No event shares a look-up that was sent before
// the worker had it: the batch is complete before the first question leaves.
func (t *turn) lookUp(groups []group) (map[string]verify.Answer, error) {
	asks := make([]verify.Ask, len(groups))
	for i, g := range groups {
		asks[i] = g.ask()
	}
	answers, err := t.Look.Look(t.running, asks)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]verify.Answer, len(asks))
	for i, a := range answers {
		byID[asks[i].FileID] = a
	}
	return byID, nil
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

// ask is the one question that serves every event of the group: by id as soon as
// one of them needs it.
func (g group) ask() verify.Ask {
	a := verify.Ask{FileID: g.fileID, Priority: verify.Run}
	for _, p := range g.events {
		a.Priority = min(a.Priority, priorityOf(p))
		a.ByID = a.ByID || p.Retried || p.Source == event.Replay || p.Source == event.Reconcile || p.Kind == event.KindDeleted ||
			p.Kind == event.KindRecheck || (p.Origin == event.Webhook && p.UpdatedAt.IsZero())
		a.NewsOnly = a.NewsOnly || p.Origin == event.Client
		a.Announced = a.Announced || (p.Kind == event.KindDeleted && p.Signed())
		if p.UpdatedAt.After(a.UpdatedAt) {
			a.UpdatedAt = p.UpdatedAt
		}
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
