package reconcile

import (
	"testing"
	"testing/synctest"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// TestAccountIsAskedAgainOnceListed: from the first page on somebody else's account
// answers, or nobody lets us in any more.
func TestAccountIsAskedAgainOnceListed(t *testing.T) {
	from := func(d *world, kind file.FaultKind, status int) {
		d.details = func(string) error {
			if len(d.queries) > 0 {
				return &file.Fault{Kind: kind, Status: status}
			}
			return nil
		}
	}
	for _, kind := range []run.Kind{run.Full, run.Plan} {
		t.Run("AnotherAccount/"+string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, dir := scene().started(kind), t.TempDir()
				from(d, file.NotFound, 404)
				d.process(t, dir)
				r := d.last()
				if r.State != run.Failed || r.Account.Confirmed || len(d.findings) > 0 || r.Listed == 0 {
					t.Errorf("%+v, %d findings", r, len(d.findings))
				}
				if doubted := d.doubted != ""; doubted != (kind == run.Full) {
					t.Errorf("the account is doubted: %q", d.doubted)
				}
				d.said(t, r, "after it was listed, of 5 known files none answered as it should")
			})
		})
	}
	t.Run("Refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, dir := scene().started(run.Full), t.TempDir()
			from(d, file.Unauthorized, 401)
			d.process(t, dir)
			d.repairedAll(t)
			r := d.last()
			if r.State != run.Partial || d.latched == "" || r.Found[run.Orphaned][run.Refused] != r.Candidates || r.Candidates == 0 {
				t.Errorf("%+v, latched %q", r, d.latched)
			}
			d.said(t, r, "ImageKit refused the private key")
		})
	})
}

// TestOrphansThatAreThere: a listing that left files out was not the library, and the run
// says so.
func TestOrphansThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := scene().started(run.Full), t.TempDir()
		hidden := ""
		d.listing = func(_ query, a file.Answer) (file.Answer, error) {
			for i, s := range a.Snapshots {
				if version, live := d.rows[s.ID]; hidden == "" && live && d.state[s.ID].seen == 1 && version == *s.Name {
					hidden = s.ID
				}
				if s.ID == hidden {
					a.Snapshots = append(a.Snapshots[:i:i], a.Snapshots[i+1:]...)
					a.Rows--
					break
				}
			}
			return a, nil
		}
		d.process(t, dir)
		r := d.last()
		if r.State != run.Partial || r.Found[run.Orphaned][run.Skipped] != 1 || d.rows[hidden] == "" {
			t.Errorf("%+v; %q hidden", r, hidden)
		}
		d.said(t, r, "the listing did not show 1 files that ImageKit has")
	})
}
