package verify

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// TestAsk: a question that is nobody's Look shares the budget and is as patient as its
// caller says.
func TestAsk(t *testing.T) {
	ask := func(t *testing.T, ctx context.Context, tries int, patience time.Duration, fail func(w http.ResponseWriter, c call) bool) (file.Answer, *library, error) {
		l := newLibrary(t, "a")
		l.fail = fail
		v := verifier(t, l, newRows())
		answer, err := v.Ask(ctx, Run, "list", tries, patience, v.Library.ListOne)
		return answer, l, err
	}
	t.Run("AsksAgainWhileItIsTransient", func(t *testing.T) {
		answer, l, err := ask(t, t.Context(), 3, time.Minute, func(w http.ResponseWriter, c call) bool {
			if c.nth < 2 {
				say(w, 503, "later")
			}
			return c.nth < 2
		})
		if err != nil || len(answer.Snapshots) != 1 || answer.Rows != 1 || len(l.calls("")) != 3 {
			t.Errorf("answer %+v, error %v, %d calls", answer, err, len(l.calls("")))
		}
	})
	t.Run("GivesTheFaultAfterItsTries", func(t *testing.T) {
		answer, l, err := ask(t, t.Context(), 2, time.Minute, func(w http.ResponseWriter, _ call) bool { say(w, 503, "later"); return true })
		var fault *file.Fault
		if !errors.As(err, &fault) || fault.Kind != file.Unavailable || answer.Status != 503 || len(l.calls("")) != 2 {
			t.Errorf("answer %+v, error %v, %d calls", answer, err, len(l.calls("")))
		}
	})
	t.Run("DoesNotRepeatARefusal", func(t *testing.T) {
		_, l, err := ask(t, t.Context(), 5, time.Minute, func(w http.ResponseWriter, _ call) bool { say(w, 403, "no"); return true })
		var fault *file.Fault
		if !errors.As(err, &fault) || fault.Kind != file.Forbidden || len(l.calls("")) != 1 {
			t.Errorf("error %v, %d calls", err, len(l.calls("")))
		}
	})
	t.Run("WaitsForA429sReset", func(t *testing.T) {
		_, l, err := ask(t, t.Context(), 1, time.Minute, func(w http.ResponseWriter, c call) bool {
			if c.nth == 0 {
				w.Header().Set("X-RateLimit-Reset", "30")
				say(w, 429, "slow down")
			}
			return c.nth == 0
		})
		calls := l.calls("")
		if err != nil || len(calls) != 2 || calls[1].at.Sub(calls[0].at) < 30*time.Millisecond {
			t.Errorf("error %v, calls %+v", err, calls)
		}
	})
	t.Run("EndsWithItsPatience", func(t *testing.T) {
		_, _, err := ask(t, t.Context(), 100, 50*time.Millisecond, func(w http.ResponseWriter, _ call) bool { say(w, 503, "later"); return true })
		var fault *file.Fault
		if !errors.As(err, &fault) || fault.Kind != file.Unavailable {
			t.Errorf("error %v", err)
		}
	})
	t.Run("EndsWithItsContext", func(t *testing.T) {
		why := errors.New("the turn is over")
		ctx, cancel := context.WithCancelCause(t.Context())
		_, _, err := ask(t, ctx, 5, time.Minute, func(w http.ResponseWriter, _ call) bool { cancel(why); say(w, 503, "later"); return true })
		if !errors.Is(err, why) {
			t.Errorf("error %v, want the context's", err)
		}
	})
}
