package worker

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// What poison costs the others, however much of it there is:
//
//   - look-ups: none. Every file of a batch is asked about once. An event that panics is
//     caught alone (step, verify.Look), one that the database refuses is found by
//     halving what is written, with the answers kept. The exceptions: a panic over a
//     whole search costs its files (at most 50) one look-up by id each, and one of Look
//     itself, before it asks, costs no question but 2·log2(n) more fences.
//   - transactions: k events that the database refuses among n cost at most
//     2k·(log2(n)+1) that roll back.
//   - waiting: a look-up that hangs holds up its own batch for verify's Patience, once;
//     other batches go on.
//   - restarts: an event that spins or eats the memory costs two (watchdog.go), one that
//     kills the process outright four, and then it is parked. During the last of these
//     trials nobody else is at work, for as long as one event takes.

// maxStack is how much of a stack is kept.
const maxStack = 4096

// panicError is a panic turned into an error, with its stack.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// step does pure work for one event while the watchdog looks, and returns its panic as
// an error.
func (t *turn) step(b *batch, p event.Pending, work func()) (err error) {
	defer func() {
		b.post.end()
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	b.post.begin(p.ID)
	work()
	return nil
}

// guarded turns a panic of f into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}

// look asks. Files over which Look itself panics are halved out; each of them gets the
// panic as its own fault.
func (t *turn) look(asks []verify.Ask) ([]verify.Answer, error) {
	var answers []verify.Answer
	err := guarded(func() (err error) {
		answers, err = t.Look.Look(t.running, asks)
		return err
	})
	var p *panicError
	switch {
	case !errors.As(err, &p):
		return answers, err
	case len(asks) == 1:
		return []verify.Answer{{Fault: &file.Fault{Kind: file.Panicked, Stack: string(p.stack), Err: err}}}, nil
	}
	half := len(asks) / 2
	first, err := t.look(asks[:half])
	if err != nil {
		return nil, err
	}
	second, err := t.look(asks[half:])
	return append(first, second...), err
}

// writePart settles the first part of the batch. What the database refuses, or writing
// panics over, is halved until the one event is found; that one is parked, and the
// others go on.
func (t *turn) writePart(b *batch) error {
	part := b.marked(b.parts[0])
	var seen []file.Observation
	for _, id := range unpoisoned(b, part) {
		if o := b.answers[id].Observation; o != nil {
			seen = append(seen, *o)
		}
	}
	err := guarded(func() error {
		return t.write(part, seen, func(p event.Pending, r file.Result) event.End { return t.endOf(b, p, r) })
	})
	var panicked *panicError
	switch {
	case err == nil:
		b.parts = b.parts[1:]
		return nil
	case !errors.As(err, &panicked) && !errors.Is(err, event.ErrUnstorable):
		return err
	case len(part) > 1:
		half := len(part) / 2
		b.parts = append(b.parts[1:], part[:half], part[half:])
		return nil
	}
	return b.condemn(err)
}

// marked is part with the poison in it named to the database: it says nothing of its file.
func (b *batch) marked(part []event.Pending) []event.Pending {
	out := slices.Clone(part)
	for i := range out {
		out[i].Poison = b.poison[out[i].ID] != nil
	}
	return out
}

// condemn makes the one event of the first part poison. An event that is refused even
// so is written without what a database could refuse.
func (b *batch) condemn(cause error) error {
	p := b.parts[0][0]
	if b.poison[p.ID] == nil {
		b.poison[p.ID] = cause
		return nil
	}
	clean := scrubbed(p)
	if reflect.DeepEqual(clean, p) {
		return fmt.Errorf("park event %s: %w", p.ID, cause)
	}
	b.parts[0] = []event.Pending{clean}
	return nil
}

// unpoisoned names the files of the events that are to be judged, each once.
func unpoisoned(b *batch, part []event.Pending) []string {
	var ids []string
	named := map[string]bool{}
	for _, p := range part {
		if b.poison[p.ID] == nil && !named[p.FileID] {
			named[p.FileID] = true
			ids = append(ids, p.FileID)
		}
	}
	return ids
}

// endOf asks the table; an event over which the table panics is poison. Found so late, it
// has been judged: its claim on the file stands.
func (t *turn) endOf(b *batch, p event.Pending, r file.Result) (end event.End) {
	if b.poison[p.ID] == nil {
		err := t.step(b, p, func() { end = t.Table.End(p, b.answers[p.FileID], r) })
		if err == nil {
			return end
		}
		b.poison[p.ID] = err
	}
	return t.deadEnd(b.poison[p.ID])
}

func (t *turn) deadEnd(cause error) event.End {
	a := &event.Attempt{At: t.Now().UTC(), Class: event.ClassTrueup, Reason: reasonPoison, Version: t.Table.Version, Excerpt: excerpt(cause.Error(), 200)}
	var panicked *panicError
	var killer *killerError
	switch {
	case errors.As(cause, &panicked):
		a.Reason, a.Excerpt = reasonPanic, withStack(cause.Error(), string(panicked.stack))
	case errors.As(cause, &killer):
		a.Excerpt = withStack(cause.Error(), killer.stack)
	case errors.Is(cause, event.ErrUnstorable):
		a.Reason, a.Class = "unstorable", event.ClassDatabase
	case errors.Is(cause, errUndecodable): // somebody else writes to our stream
		a.Reason, a.Class = "undecodable", event.ClassCaller
	}
	return event.End{Kind: event.Dead, Reason: a.Reason, Class: a.Class, Attempt: a, Note: excerpt(cause.Error(), 200)}
}

func withStack(text, stack string) string {
	return excerpt(strings.TrimSpace(text+"\n"+stack), maxStack)
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

var errUndecodable = errors.New("the envelope cannot be decoded")

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
