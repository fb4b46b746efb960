package worker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// survived is how many crashes an event's own mark must survive to be poison.
const survived = 2

// panicError is a panic turned into an error, with its stack.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// settle brings every event to its end, or returns why it could not: a stop, or a
// moved turn. A panic, or data that the database refuses, halves the batch until
// the one event is found; that one is parked and the others go on.
func (t *turn) settle(stop context.Context, pending []event.Pending) error {
	err := t.guarded(stop, pending)
	var panicked *panicError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &panicked) && !errors.Is(err, event.ErrUnstorable):
		return err
	case len(pending) > 1:
		half := len(pending) / 2
		return errors.Join(t.settle(stop, pending[:half]), t.settle(stop, pending[half:]))
	}
	return t.park(stop, pending[0], err)
}

func (t *turn) guarded(stop context.Context, pending []event.Pending) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return t.attempt(stop, pending)
}

// park settles one event as a dead letter without asking anybody about it.
func (t *turn) park(stop context.Context, p event.Pending, cause error) error {
	end := t.deadEnd(cause)
	t.Logger.ErrorContext(stop, "event.parked", "event", p.ID, "file", p.FileID, "class", string(end.Class), "reason", end.Reason, "cause", cause.Error())
	for {
		err := t.write([]event.Pending{p}, nil, func(event.Pending, file.Result) event.End { return end })
		if errors.Is(err, event.ErrUnstorable) {
			p = scrubbed(p)
			err = t.write([]event.Pending{p}, nil, func(event.Pending, file.Result) event.End { return end })
		}
		if err == nil {
			return nil
		}
		if err := t.survive(stop, err); err != nil {
			return err
		}
	}
}

func (t *turn) deadEnd(cause error) event.End {
	a := &event.Attempt{At: t.Now().UTC(), Class: event.ClassTrueup, Reason: "poison", Version: t.Table.Version, Excerpt: excerpt(cause.Error(), 200)}
	var panicked *panicError
	switch {
	case errors.As(cause, &panicked):
		a.Reason, a.Excerpt = "panic", excerpt(cause.Error()+"\n"+string(panicked.stack), 4096)
	case errors.Is(cause, event.ErrUnstorable):
		a.Reason, a.Class = "unstorable", event.ClassDatabase
	case errors.Is(cause, errUndecodable):
		a.Reason = "undecodable"
	}
	return event.End{Kind: event.Dead, Reason: a.Reason, Class: a.Class, Attempt: a, Note: excerpt(cause.Error(), 200)}
}

// scrubbed drops what a database could refuse and keeps the body, which is bytes.
func scrubbed(p event.Pending) event.Pending {
	clean := func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�") }
	p.Headers, p.Attempts = nil, nil
	p.Kind, p.FileID, p.User, p.WebhookID = clean(p.Kind), clean(p.FileID), clean(p.User), clean(p.WebhookID)
	return p
}

func excerpt(s string, n int) string {
	return strings.ToValidUTF8(s[:min(n, len(s))], "")
}

var (
	errUndecodable = errors.New("the envelope cannot be decoded")
	errPoison      = errors.New("the process ended twice while this event was on trial")
)

// suspect settles an envelope that was handed out before and not acked: a process
// may have died of it. Its events are marked durably first and run apart from
// everybody else; those whose mark has survived a crash run alone, and a mark that
// has survived two is poison. Redelivery alone condemns nobody.
func (t *turn) suspect(stop context.Context, d *event.Delivery) error {
	if d.Err != nil {
		return t.park(stop, undecodable(d), fmt.Errorf("%w: %w", errUndecodable, d.Err))
	}
	pending := pendingOf([]*event.Delivery{d})
	marks, err := t.mark(stop, pending)
	if err != nil {
		return err
	}
	t.Logger.WarnContext(stop, "envelope.suspect", "envelope", d.Envelope.ID, "delivered", d.Delivered, "events", len(pending))
	var together []event.Pending
	for _, p := range pending {
		if marks[p.ID].Survived == 0 {
			together = append(together, p)
		}
	}
	if len(together) > 0 {
		if err := t.settle(stop, together); err != nil {
			return err
		}
	}
	for _, p := range pending {
		switch {
		case marks[p.ID].Survived >= survived:
			err = t.park(stop, p, errPoison)
		case marks[p.ID].Survived > 0:
			err = t.settle(stop, []event.Pending{p})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) mark(stop context.Context, pending []event.Pending) (map[string]event.Mark, error) {
	ids := make([]string, len(pending))
	for i, p := range pending {
		ids[i] = p.ID
	}
	for {
		marks, err := t.Rows.Mark(t.running, t.number, ids)
		if err == nil {
			return marks, nil
		}
		if err := t.survive(stop, err); err != nil {
			return nil, err
		}
	}
}

// undecodable makes an event of bytes that are no envelope, so that they end as a
// dead letter. Its id follows from the message's place in the stream, so that a
// redelivery is the same event.
func undecodable(d *event.Delivery) event.Pending {
	var place [8]byte
	binary.BigEndian.PutUint64(place[:], d.Sequence)
	sum := sha256.Sum256(append(place[:], d.Raw...))
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(d.StoredAt))
	_ = id.SetEntropy(sum[:10])
	return event.Pending{Event: event.Event{ID: id.String(), Source: event.Webhook, Kind: "undecodable", AcceptedAt: d.StoredAt.UTC(), Body: d.Raw}}
}

// levelOf keeps the ordinary quiet and the rest visible.
func levelOf(end event.End) slog.Level {
	switch end.Kind {
	case event.Dead:
		return slog.LevelError
	case event.Rejected:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
