package store_test

import (
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/event"
)

// TestTrials: an event that is settled is not tried again, whatever its mark was; one
// that is not keeps its mark, and the stack it was blamed with.
func TestTrials(t *testing.T) {
	r := newRig(t)
	fresh, blamed, settled := webhook("f1"), webhook("f2"), webhook("f3")
	r.see(settled, r.look("f3", snap("f3", 0)))
	if err := r.st.Blame(r.ctx, r.turn, []string{blamed.ID}, "where it was"); err != nil {
		t.Fatal(err)
	}
	got, err := r.st.Trials(r.ctx, []event.Pending{fresh, blamed, settled})
	if err != nil || len(got) != 2 || got[fresh.ID].Survived != 0 || got[blamed.ID].Survived != 1 || !strings.Contains(got[blamed.ID].Stack, "where") {
		t.Errorf("trials %+v, %v", got, err)
	}
	fresh.Retried = true
	if got, err := r.st.Trials(r.ctx, []event.Pending{fresh}); err != nil || len(got) != 0 {
		t.Errorf("a retry that waits nowhere is to be tried: %+v, %v", got, err)
	}
}
