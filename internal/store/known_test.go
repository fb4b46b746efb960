package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

func (r *rig) known(n int) map[string]time.Time {
	r.Helper()
	all, err := r.st.KnownFiles(r.ctx, n)
	if err != nil {
		r.Fatal(err)
	}
	out := map[string]time.Time{}
	for _, k := range all {
		out[k.FileID] = k.CreatedAt
	}
	if len(out) != len(all) {
		r.Errorf("a file is named twice: %v", all)
	}
	return out
}

func TestKnownFiles(t *testing.T) {
	r := newRig(t)
	wantKnown := func(t *testing.T, n int, want ...string) {
		t.Helper()
		var got []string
		for id, at := range r.known(n) {
			if !at.IsZero() {
				id += "+"
			}
			got = append(got, id)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	t.Run("NoneInAnEmptyDatabase", func(t *testing.T) { wantKnown(t, 5) })
	r.settle(nil, r.look("same", snap("same", 0)), r.look("suspect", snap("suspect", 0)), r.look("corrupted", snap("corrupted", 0)), r.look("announced", snap("announced", 0)))
	r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('app', 'u', 'bob')`)
	r.exec(`UPDATE imagekit_files SET upload_timestamp = now() WHERE file_id = 'corrupted'`)
	r.see(recheck("suspect"), r.look("suspect", nil))
	o := r.look("announced", nil)
	o.Canary = file.Canary{}
	r.see(deleted("announced"), o)
	t.Run("VerifiedOnesFirstThenAny", func(t *testing.T) {
		for range 20 {
			wantKnown(t, 1, "same+")
		}
		wantKnown(t, 3, "app", "corrupted", "same+")
		if at := r.known(1)["same"]; !at.Equal(base) {
			t.Errorf("created at %v, want %v", at, base)
		}
	})
	t.Run("SuspectOnesLastAnnouncedOnesNever", func(t *testing.T) { wantKnown(t, 9, "app", "corrupted", "same+", "suspect") })
	t.Run("OfATableThatSomebodyEmptied", func(t *testing.T) {
		r.exec(`DELETE FROM imagekit_files`)
		wantKnown(t, 9, "corrupted", "same", "suspect")
		wantKnown(t, 2, "corrupted", "same")
	})
	t.Run("FromAllOverABigTable", func(t *testing.T) {
		// What one bad statement has put there does not hide the rest.
		r := newRig(t)
		r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) SELECT 'f' || n, 'u', '' FROM generate_series(1, 5000) n`)
		r.exec(`INSERT INTO trueup.file_state (file_id, seen) SELECT 'f' || n, nextval('trueup.fence') FROM generate_series(1, 5000) n`)
		r.exec(`UPDATE trueup.file_state SET suspect_at = now(), suspect_fence = 1 WHERE substr(file_id, 2)::int BETWEEN 1000 AND 2000`)
		seen := map[string]bool{}
		for range 60 {
			for id := range r.known(5) {
				seen[id] = true
			}
		}
		early, late := 0, 0
		for id := range seen {
			var n int
			if _, err := fmt.Sscanf(id, "f%d", &n); err != nil {
				t.Fatal(err)
			}
			switch {
			case n >= 1000 && n <= 2000:
				t.Errorf("%s is suspect", id)
			case n < 1000:
				early++
			case n > 4000:
				late++
			}
		}
		if len(seen) < 100 || early == 0 || late == 0 {
			t.Errorf("%d different files in 60 draws, %d early, %d late", len(seen), early, late)
		}
	})
	t.Run("WithoutATimestampOfOurs", func(t *testing.T) {
		r := newRig(t)
		r.settle(nil, r.look("f1", snap("f1", 0)))
		r.exec(`ALTER TABLE imagekit_files DROP COLUMN upload_timestamp`)
		if got := r.known(1); len(got) != 1 || !got["f1"].IsZero() {
			t.Errorf("got %v", got)
		}
	})
}
