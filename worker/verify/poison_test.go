package verify

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Poison is a file over which our code panics, or which never answers. These tests
// count what it costs the others; that the worker then settles them is tested there.

func panicsOver(poison ...string) func(*file.Snapshot) file.Proof {
	return func(s *file.Snapshot) file.Proof {
		if slices.Contains(poison, s.ID) {
			panic("boom over " + s.ID)
		}
		return file.Proof{}
	}
}

// TestI15APanicIsTheFilesOwn: neither the neighbours' answers nor the number of
// questions change because of a file that our code panics over.
func TestI15APanicIsTheFilesOwn(t *testing.T) {
	for name, c := range map[string]struct {
		change            func(*Ask)
		details, searches int
	}{
		"InALookUp": {byID, 40, 0},
		"InAHit":    {func(*Ask) {}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ids := names("f", 40)
			l := newLibrary(t, ids...)
			v := verifier(t, l, newRows(), func(config *Config) { config.Prove = panicsOver(ids[3], ids[17]) })
			answers := look(t, v, asksFor(ids, c.change)...)
			for i, a := range answers {
				poison := i == 3 || i == 17
				switch {
				case poison && (a.Fault == nil || a.Fault.Kind != file.Panicked || !strings.Contains(a.Fault.Stack, "panicsOver")):
					t.Errorf("%s: %+v, want its own panic with the stack", ids[i], a.Fault)
				case !poison && a.Observation == nil:
					t.Errorf("%s was disturbed: %+v", ids[i], a.Fault)
				}
			}
			if d, s := len(l.calls("details")), len(l.calls("search")); d != c.details || s != c.searches {
				t.Errorf("%d look-ups and %d searches, want %d and %d", d, s, c.details, c.searches)
			}
		})
	}
}

// panicky panics over a whole search.
type panicky struct{ Library }

func (panicky) Search(context.Context, []string) (file.Answer, error) { panic("boom") }

func TestI15APanicOverASearchCostsOneLookUpEach(t *testing.T) {
	ids := names("f", 40)
	l := newLibrary(t, ids...)
	v := verifier(t, l, newRows(), func(c *Config) { c.Library = panicky{c.Library} })
	for i, a := range look(t, v, asksFor(ids)...) {
		if a.Observation == nil {
			t.Errorf("%s was disturbed: %+v", ids[i], a.Fault)
		}
	}
	if n := len(l.calls("details")); n != len(ids) {
		t.Errorf("%d look-ups for %d files", n, len(ids))
	}
}

// TestI15HangingLookUpsLeaveRoom: 200 look-ups hang until a healthy file has been asked
// about, which stands behind all of them in the same Look.
func TestI15HangingLookUpsLeaveRoom(t *testing.T) {
	ids := append(names("hang", 200), "healthy")
	l := newLibrary(t, ids...)
	healthy := make(chan struct{})
	var once sync.Once
	l.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/files/hang") {
			select {
			case <-healthy:
			case <-r.Context().Done():
				return
			}
		}
		if strings.HasPrefix(r.URL.Path, "/v1/files/healthy") {
			once.Do(func() { close(healthy) })
		}
		l.serve(w, r)
	})
	v := verifier(t, l, newRows(), func(c *Config) { c.Patience, c.Tries = time.Minute, 1 })
	for i, a := range look(t, v, asksFor(ids, byID)...) {
		if a.Observation == nil {
			t.Errorf("%s: %+v", ids[i], a.Fault)
		}
	}
}

// TestI15AHangingLookHoldsNoOtherBack: the line before the budget holds at most Waiting
// calls of one Look, so that those of another get through although the first has many
// more to send.
func TestI15AHangingLookHoldsNoOtherBack(t *testing.T) {
	ids := names("hang", 200)
	l := newLibrary(t, "healthy")
	arrived := make(chan struct{}, len(ids))
	l.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/files/hang") {
			arrived <- struct{}{}
			<-r.Context().Done()
			return
		}
		l.serve(w, r)
	})
	v := verifier(t, l, newRows(), func(c *Config) {
		c.Patience, c.Waiting, c.Budget = time.Minute, 4, BudgetConfig{StartRate: 40, MaxRate: 40}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	hanging.Go(func() { _, _ = v.Look(ctx, asksFor(ids, byID)) })
	defer hanging.Wait()
	defer cancel()
	for range 10 { // the burst is spent: now there is a line
		<-arrived
	}
	if got := look(t, v, Ask{FileID: "healthy", ByID: true}); got[0].Observation == nil {
		t.Errorf("answer %+v", got[0].Fault)
	}
	if n := len(arrived) + 10; n > 40 {
		t.Errorf("%d hanging look-ups left before the healthy one, want not many more than the 14 that stood before it", n)
	}
}
