package reconcile

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// flaky is a source, and all that a verifier needs, that fails so many times first.
type flaky struct {
	fails int
	kind  file.FaultKind
	asked []string
}

func (f *flaky) say(what string) (file.Answer, error) {
	f.asked = append(f.asked, what)
	if len(f.asked) <= f.fails {
		return file.Answer{}, &file.Fault{Kind: f.kind}
	}
	return file.Answer{Snapshots: []file.Snapshot{{ID: what}}, Rows: 1}, nil
}

func (f *flaky) ListCreated(_ context.Context, from time.Time, skip int) (file.Answer, error) {
	return f.say("created " + from.Format(time.DateOnly) + string(rune('0'+skip)))
}

func (f *flaky) ListUpdated(_ context.Context, from time.Time, skip int) (file.Answer, error) {
	return f.say("updated " + from.Format(time.DateOnly) + string(rune('0'+skip)))
}

func (f *flaky) Newest(context.Context) (file.Answer, error) { return f.say("newest") }
func (f *flaky) Details(_ context.Context, id string) (file.Answer, error) {
	return f.say("details " + id)
}
func (f *flaky) ListOne(context.Context) (file.Answer, error)          { return f.say("one") }
func (f *flaky) Search(context.Context, []string) (file.Answer, error) { return f.say("search") }

func (f *flaky) Fence(context.Context, []string) (file.Fence, map[string]file.Known, error) {
	return file.Fence{}, nil, nil
}

// TestHealthyIsTheVerifiers: how patient a probe is, and what it asks, is its own.
func TestHealthyIsTheVerifiers(t *testing.T) {
	for fails, healthy := range map[int]bool{0: true, 1000: false} {
		synctest.Test(t, func(t *testing.T) {
			f := &flaky{fails: fails, kind: file.Unavailable}
			v, err := verify.New(verify.Config{Library: f, Fences: f})
			if err != nil {
				t.Fatal(err)
			}
			if err := NewLibrary(f, v).Healthy(t.Context()); (err == nil) != healthy || len(f.asked) == 0 {
				t.Errorf("failing %d times: %v after asking %q", fails, err, f.asked)
			}
		})
	}
}

// TestTheBudgetedLibrary: each question is that of the source, asked up to five times.
func TestTheBudgetedLibrary(t *testing.T) {
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	questions := []struct {
		want string
		ask  func(Library, context.Context) (file.Answer, error)
	}{
		{"created 2026-01-025", func(l Library, ctx context.Context) (file.Answer, error) { return l.ListCreated(ctx, day, 5) }},
		{"updated 2026-01-026", func(l Library, ctx context.Context) (file.Answer, error) { return l.ListUpdated(ctx, day, 6) }},
		{"newest", func(l Library, ctx context.Context) (file.Answer, error) { return l.Newest(ctx) }},
		{"details a", func(l Library, ctx context.Context) (file.Answer, error) { return l.Details(ctx, "a") }},
	}
	for _, q := range questions {
		for fails, kind := range map[int]file.FaultKind{0: "", 4: file.Unavailable, 5: file.TimedOut, 1: file.Forbidden} {
			synctest.Test(t, func(t *testing.T) {
				f := &flaky{fails: fails, kind: kind}
				v, err := verify.New(verify.Config{Library: f, Fences: f})
				if err != nil {
					t.Fatal(err)
				}
				_, err = q.ask(NewLibrary(f, v), t.Context())
				asked := min(fails+1, libraryTries)
				if fails == 1 {
					asked = 1 // a refusal is not repeated
				}
				if !slices.Equal(f.asked, slices.Repeat([]string{q.want}, asked)) {
					t.Errorf("asked %q, want %d times %q", f.asked, asked, q.want)
				}
				var fault *file.Fault
				if failed := fails == 1 || fails == 5; failed != (err != nil) || failed && (!errors.As(err, &fault) || fault.Kind != kind) {
					t.Errorf("%s, failing %d times: %v", q.want, fails, err)
				}
			})
		}
	}
}
