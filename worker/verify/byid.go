package verify

import (
	"context"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// byID looks the files at indexes up, one call each.
func (l *oneLook) byID(ctx context.Context, indexes []int, fence file.Fence) error {
	return l.each(ctx, len(indexes), func(ctx context.Context, n int) error {
		i := indexes[n]
		err := caught(func() error { return l.lookUp(ctx, i, fence) })()
		if p := panicIn(err); p != nil {
			l.v.Metrics.answered("panic")
			l.set(i, Answer{Fault: p.fault()})
			return nil
		}
		return err
	})
}

// lookUp asks about one file until it has an answer, a fault of its own, or an
// outage.
func (l *oneLook) lookUp(ctx context.Context, i int, fence file.Fence) error {
	a := l.asks[i]
	answer, fault, sent, err := l.v.details(ctx, a.Priority, a.FileID)
	if err != nil {
		return err
	}
	switch {
	case fault == nil:
		l.v.Metrics.answered("look-up")
		l.set(i, Answer{Observation: l.v.observed(file.LookUp, fence, &answer.Snapshots[0], answer)})
	case fault.Absent():
		l.v.Metrics.answered("absent")
		l.set(i, Answer{Observation: &file.Observation{FileID: a.FileID, How: file.LookUp, Fence: fence,
			Status: fault.Status, RequestID: fault.RequestID}})
	default:
		if err := l.judge(ctx, a, fault, sent); err != nil {
			return err
		}
		l.v.Metrics.answered("fault")
		l.set(i, Answer{Fault: fault})
	}
	return nil
}

// details looks one file up by id and remembers how that went. sent is when the
// last try began.
func (v *Verifier) details(ctx context.Context, p Priority, id string) (answer file.Answer, fault *file.Fault, sent time.Time, err error) {
	answer, fault, err = v.ask(ctx, p, "details", v.Tries, v.Patience, func(ctx context.Context) (file.Answer, error) {
		sent = time.Now()
		return v.Library.Details(ctx, id)
	})
	switch {
	case err != nil:
	case fault == nil:
		v.recent.saw(id, sent)
	case fault.Absent():
		v.recent.forget(id)
	}
	return answer, fault, sent, err
}

// observed makes an observation of a snapshot.
func (v *Verifier) observed(how file.How, fence file.Fence, s *file.Snapshot, answer file.Answer) *file.Observation {
	defer v.Step(s.ID)()
	return &file.Observation{FileID: s.ID, How: how, Fence: fence, Snapshot: s, Proof: v.Prove(s),
		Status: answer.Status, RequestID: answer.RequestID}
}
