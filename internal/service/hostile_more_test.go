package service_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/testenv"
)

// TestHostileBurst: 1,300 files were made in one second, and pages have 1,000: whatever
// skip does, nothing is removed.
func TestHostileBurst(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t, hostileFiles)
	r.keep()
	for _, c := range []hostileCase{
		{name: "SkipWorks", state: run.Complete, whole: true},
		{name: "SkipIsIgnored", tricks: play(skipIgnored), state: run.Partial, fuse: true, says: []string{"skip is ignored"}},
		{name: "SkipIsRefused", tricks: play(skipRefused), state: run.Partial, fuse: true, says: []string{"refuses to skip"}},
		{name: "APageComesCut", tricks: play(truncated(nth(1), 10)), state: run.Complete, whole: true},
	} {
		c.page, c.prepare = 1000, func(r *hostileRig) {
			for i := range 1300 {
				b := made(1000 + i)
				b.created = time.Date(2026, 1, 1, 0, 0, 0, 1e6*(i%900), time.UTC)
				b.updated = b.created
				r.shelf.put(b)
			}
		}
		t.Run(c.name, func(t *testing.T) { c.run(t, r) })
	}
	r.t = t
}

// TestHostileColumns: the application has added a column of its own, and dropped one of
// those that migrate has filled, the second in the middle of a run.
func TestHostileColumns(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t, 24)
	r.damage()
	r.exec(`ALTER TABLE public.imagekit_files ADD COLUMN album text NOT NULL DEFAULT 'holiday', ADD COLUMN stars int`)
	r.exec(`UPDATE public.imagekit_files SET album = 'mine', stars = 5`)
	r.shelf.page = 7
	r.shelf.play(before(2, "dropped a column", func(*question) { r.exec(`ALTER TABLE public.imagekit_files DROP COLUMN mime`) }))
	got := r.run()
	t.Logf("%s: %s; found %v, notes %q", got.State, got.Error, got.Found, got.Notes)
	if err := r.safe(); err != nil {
		t.Error(err)
	}
	if got.State != run.Complete {
		t.Errorf("the run is %s: %s", got.State, got.Error)
	}
	wrong := r.query(`SELECT file_id || ' ' || album FROM public.imagekit_files WHERE (album <> 'mine' OR stars <> 5) AND file_id <> ALL($1)`,
		[]string{made(1).id, made(2).id, made(24).id})
	if len(wrong) > 0 {
		t.Errorf("the application's own columns were written: %v", wrong)
	}
	named := r.query(`SELECT file_id || ' ' || file_name FROM public.imagekit_files ORDER BY 1`)
	var want []string
	for _, b := range r.shelf.holds() {
		want = append(want, fmt.Sprintf("%s %s_v%d.jpg", b.id, b.id[:4], b.version))
	}
	if strings.Join(named, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(named, "\n"), strings.Join(want, "\n"))
	}
}

// TestHostileRestartWithAnotherKey: the process is stopped in the middle of a listing, and
// started again with another account's key. Nothing of that account becomes a row, no row
// is judged, and the run says so.
func TestHostileRestartWithAnotherKey(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t, 24)
	r.damage()
	before := r.table()
	third, goOn := make(chan struct{}), make(chan struct{})
	r.shelf.page = 7
	r.shelf.play(ofList(nth(2), "held", func(*question, *reply) { close(third); <-goOn }))
	begun := r.begin(run.Full)
	<-third
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	close(goOn)
	<-stopped
	r.shelf.play(anotherAccount(-1, 20))
	r.key = "k2"
	r.start()
	got := r.await(begun.ID)
	t.Logf("%s: %s; notes %q", got.State, got.Error, got.Notes)
	said := strings.Join(append(got.Notes, got.Error), "\n")
	if got.State != run.Failed || got.Account.Confirmed || !strings.Contains(said, "may be another account's key") || r.doubt() == "" {
		t.Errorf("the run is %s, account %+v: %s", got.State, got.Account, said)
	}
	if !strings.Contains(said, "the private key is not the one with which the account was confirmed last") {
		t.Errorf("nothing is said of the other key: %s", said)
	}
	if have := r.table(); len(have) != len(before) || len(r.removed()) > 0 {
		t.Errorf("%d rows, and there were %d; removed %v", len(have), len(before), r.removed())
	}
	r.stop()
	r.key = "k1"
	r.start()
	if err := r.recover(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if why := r.doubt(); why != "" {
			return fmt.Errorf("still in doubt: %s", why)
		}
		return nil
	})
}
