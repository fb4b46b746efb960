package verify

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

func TestLookByID(t *testing.T) {
	t.Run("SeesAFileThatIsThere", func(t *testing.T) {
		l := newLibrary(t, "a")
		got := look(t, verifier(t, l, newRows()), Ask{FileID: "a", ByID: true})[0].Observation
		if got == nil || !got.Present() || got.How != file.LookUp || got.Fence.Number != 1 || got.Status != 200 || got.RequestID != "req-200" {
			t.Errorf("observation %+v", got)
		}
	})
	t.Run("SeesThatAFileIsMissing", func(t *testing.T) {
		l := newLibrary(t)
		got := look(t, verifier(t, l, newRows()), Ask{FileID: "a", ByID: true})[0].Observation
		if got == nil || got.Present() || got.How != file.LookUp || got.Status != 404 {
			t.Errorf("observation %+v", got)
		}
		if n := len(l.calls("list")); n != 0 {
			t.Errorf("%d listings for the canary of a file nobody knows, want none", n)
		}
	})
	t.Run("NeverAsksAboutAnImpossibleID", func(t *testing.T) {
		l := newLibrary(t)
		r := newRows()
		got := look(t, verifier(t, l, r), Ask{FileID: "../../etc"}, Ask{FileID: "nul\x00"})
		for _, a := range got {
			if a.Observation == nil || a.Observation.Present() || a.Observation.Fence.Number == 0 {
				t.Errorf("answer %+v, want an absence with a fence", a)
			}
		}
		if len(l.calls("")) != 0 || len(r.asked[0]) != 0 {
			t.Errorf("asked ImageKit %v, rows %v", l.calls(""), r.asked)
		}
	})
	t.Run("AnswersInOrderAndMergesOneFile", func(t *testing.T) {
		l := newLibrary(t, "a", "b")
		got := look(t, verifier(t, l, newRows()), Ask{FileID: "b"}, Ask{FileID: "a"}, Ask{FileID: "b", ByID: true})
		if got[0].Observation.FileID != "b" || got[1].Observation.FileID != "a" || got[2].Observation.FileID != "b" {
			t.Error("answers out of order")
		}
		if n := len(l.calls("details")); n != 2 {
			t.Errorf("%d look-ups, want 2", n)
		}
	})
	t.Run("DrawsTheFenceBeforeAsking", func(t *testing.T) {
		l := newLibrary(t, "a")
		r := newRows()
		r.err = event.ErrOutage
		_, err := verifier(t, l, r).Look(t.Context(), []Ask{{FileID: "a"}})
		if !errors.Is(err, event.ErrOutage) || len(l.calls("")) != 0 {
			t.Errorf("error %v, calls %v", err, l.calls(""))
		}
	})
	t.Run("ProvesTickets", func(t *testing.T) {
		l := newLibrary(t, "a")
		prove := func(s *file.Snapshot) file.Proof { return file.Proof{User: "owner of " + s.ID} }
		got := look(t, verifier(t, l, newRows(), func(c *Config) { c.Prove = prove }), Ask{FileID: "a"})
		if got[0].Observation.Proof.User != "owner of a" {
			t.Errorf("proof %+v", got[0].Observation.Proof)
		}
	})
	t.Run("PanicsInTheCallersGoroutine", func(t *testing.T) {
		l := newLibrary(t, "a")
		v := verifier(t, l, newRows(), func(c *Config) { c.Fences = fencesThatPanic{} })
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
			if n := len(l.calls("")); n != 0 {
				t.Errorf("%d questions were sent", n)
			}
		}()
		_, _ = v.Look(t.Context(), []Ask{{FileID: "a"}})
	})
}

type fencesThatPanic struct{}

func (fencesThatPanic) Fence(context.Context, []string) (file.Fence, map[string]file.Known, error) {
	panic("boom")
}

// TestTransientFaultsAreRepeated: each fault once and gone, and each fault for good.
func TestTransientFaultsAreRepeated(t *testing.T) {
	cut := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`{"type":`))
		panic(http.ErrAbortHandler)
	}
	tests := []struct {
		name   string
		kind   file.FaultKind
		tries  int
		answer func(w http.ResponseWriter)
	}{
		{"500", file.Unavailable, 3, func(w http.ResponseWriter) { say(w, 500, "x") }},
		{"503", file.Unavailable, 3, func(w http.ResponseWriter) { say(w, 503, "x") }},
		{"423", file.Unavailable, 3, func(w http.ResponseWriter) { say(w, 423, "x") }},
		{"CutBody", file.Unreachable, 3, cut},
		{"CutBeforeAnswer", file.Unreachable, 3, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
		{"HTML", file.Garbled, 3, func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }},
		{"Redirect", file.Garbled, 3, func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }},
		{"WrongFile", file.Garbled, 3, func(w http.ResponseWriter) { say(w, 200, object("other", epoch)) }},
		{"400", file.BadRequest, 1, func(w http.ResponseWriter) { say(w, 400, "nonsense") }},
		{"401", file.Unauthorized, 1, func(w http.ResponseWriter) { say(w, 401, "x") }},
		{"403", file.Forbidden, 1, func(w http.ResponseWriter) { say(w, 403, "x") }},
	}
	for _, tt := range tests {
		t.Run(tt.name+"OfTheFileItself", func(t *testing.T) {
			l := newLibrary(t, "bad", "good")
			l.fail = func(w http.ResponseWriter, c call) bool {
				if slices.Contains(c.ids, "bad") {
					tt.answer(w)
					return true
				}
				return false
			}
			got := look(t, verifier(t, l, newRows().live(epoch, "good")), Ask{FileID: "bad"})[0]
			if got.Fault == nil || got.Fault.Kind != tt.kind {
				t.Fatalf("answer %+v, want %s", got, tt.kind)
			}
			n := 0
			for _, c := range l.calls("details") {
				if c.ids[0] == "bad" {
					n++
				}
			}
			if n != tt.tries {
				t.Errorf("asked %d times, want %d", n, tt.tries)
			}
		})
		t.Run(tt.name+"OfTheWholeLibrary", func(t *testing.T) {
			l := newLibrary(t, "a", "b", "good")
			v := verifier(t, l, newRows().live(epoch, "good"))
			l.fail = func(w http.ResponseWriter, _ call) bool { tt.answer(w); return true }
			answers, err := v.Look(t.Context(), []Ask{{FileID: "a"}, {FileID: "b"}})
			if !errors.Is(err, ErrLibraryOutage) || answers != nil {
				t.Fatalf("answers %v, error %v, want an outage", answers, err)
			}
			if err := v.Healthy(t.Context()); !errors.Is(err, ErrLibraryOutage) {
				t.Errorf("Healthy: %v, want an outage", err)
			}
			l.with(func() { l.fail = nil })
			if err := v.Healthy(t.Context()); err != nil {
				t.Errorf("Healthy after the outage: %v", err)
			}
		})
		if tt.tries == 1 {
			continue
		}
		t.Run(tt.name+"OnceIsNothing", func(t *testing.T) {
			l := newLibrary(t, "a")
			l.fail = func(w http.ResponseWriter, c call) bool {
				if c.nth == 0 {
					tt.answer(w)
				}
				return c.nth == 0
			}
			got := look(t, verifier(t, l, newRows()), Ask{FileID: "a"})[0]
			if got.Observation == nil || !got.Observation.Present() {
				t.Errorf("answer %+v", got)
			}
			if n := len(l.calls("details")); n < 2 {
				t.Errorf("%d calls: the fault never fired", n)
			}
		})
	}
}

func TestAFileThatHangs(t *testing.T) {
	l := newLibrary(t, "good")
	l.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/files/bad/details" {
			<-r.Context().Done()
			return
		}
		l.serve(w, r)
	})
	v := verifier(t, l, newRows().live(epoch, "good"), func(c *Config) { c.Patience = 300 * time.Millisecond })
	got := look(t, v, Ask{FileID: "bad"}, Ask{FileID: "good"})
	if got[0].Fault == nil || got[0].Fault.Kind != file.TimedOut || got[1].Observation == nil {
		t.Errorf("answers %+v", got)
	}
}

func TestACancelledLook(t *testing.T) {
	why := errors.New("the turn moved")
	for _, when := range []string{"Before", "WhileAsking", "WhileWaitingForTheBudget"} {
		t.Run(when, func(t *testing.T) {
			l := newLibrary(t, "a")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			v := verifier(t, l, newRows())
			switch when {
			case "Before":
				cancel(why)
			case "WhileAsking":
				l.fail = func(w http.ResponseWriter, _ call) bool { cancel(why); say(w, 503, "x"); return true }
			case "WhileWaitingForTheBudget":
				v.budget.heard("list", file.Rate{}, &file.Fault{Kind: file.Limited, Status: 429, Wait: time.Hour}, time.Now())
				go func() {
					for v.Status().Waiting["live"] == 0 && t.Context().Err() == nil {
						runtime.Gosched()
					}
					cancel(why)
				}()
			}
			answers, err := v.Look(ctx, asksFor([]string{"a", "b"}))
			if !errors.Is(err, why) || answers != nil {
				t.Errorf("answers %v, error %v, want the reason for stopping", answers, err)
			}
			if n := v.Status().Waiting["live"]; n != 0 {
				t.Errorf("%d calls still wait", n)
			}
		})
	}
}

func TestMetricsCountCallsPerFile(t *testing.T) {
	ids := names("f", 100)
	l := newLibrary(t, append(ids, "bad")...)
	l.fail = func(w http.ResponseWriter, c call) bool {
		if slices.Equal(c.ids, []string{"bad"}) {
			say(w, 503, "x")
			return true
		}
		return false
	}
	registry := prometheus.NewRegistry()
	v := verifier(t, l, newRows().live(epoch, "f000"), func(c *Config) { c.Metrics = NewMetrics(registry) })
	look(t, v, asksFor(append(ids[1:], "f001", "f001"))...)
	look(t, v, Ask{FileID: "bad"}, Ask{FileID: "gone"})

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.Counter == nil {
				continue
			}
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = metric.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"trueup_imagekit_calls_total search ok":           2,
		"trueup_imagekit_calls_total details unavailable": 3,
		"trueup_imagekit_calls_total details not_found":   1,
		"trueup_imagekit_calls_held_total":                0,
		"trueup_imagekit_probes_total alive":              1,
		"trueup_verify_coalesced_total":                   2,
		"trueup_verify_files_total hit":                   99,
		"trueup_verify_files_total absent":                1,
		"trueup_verify_files_total fault":                 1,
	}
	delete(got, "trueup_imagekit_calls_total details ok") // the probe's
	if !maps.Equal(got, want) {
		t.Errorf("counted %v\nwant    %v", got, want)
	}
}
