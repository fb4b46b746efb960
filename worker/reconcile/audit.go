package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// AuditRows is a table that anybody may have made, to be read only: a file_id may stand
// there twice, be empty or be no fileId at all.
type AuditRows interface {
	// Hash is the hash that a row with exactly this content would have.
	Hash(ctx context.Context, snapshots []*file.Snapshot) ([]int64, error)
	// Local yields every row in the byte order of file_id.
	Local(ctx context.Context, yield func(run.Local) error) error
	// Differences says by file which columns of its row disagree; values are not cut short.
	Differences(ctx context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error)
}

// AuditConfig is what an audit needs. Library and Rows are required.
type AuditConfig struct {
	Library Library
	Rows    AuditRows
	// TempDir is where the listing is kept meanwhile; empty means the system's own.
	TempDir string
	// Sample is how many of the rows that the listing does not show are looked up by id;
	// zero means 200.
	Sample int
	// Examples are kept of each kind; zero means 10.
	Examples int
	// Slice is how many rows are compared column by column at once; zero means 500.
	Slice int
	// Patience is how long ImageKit may be away before the listing is left as it is; zero
	// means 2 min.
	Patience time.Duration
	// Progress hears how far it is; nil: nobody does.
	Progress func(AuditProgress)
}

// AuditProgress is how far an audit is.
type AuditProgress struct {
	// Phase is "list", "compare" or "look up".
	Phase   string
	Files   int64 // listed
	Rows    int64 // compared
	Asked   int64 // of Sampled looked up by id
	Sampled int64
	// Waiting says what is waited for; empty while it moves.
	Waiting string
}

// ErrNotRecognised means that the key and the table do not belong together, as far as
// anybody can tell: nothing was judged.
var ErrNotRecognised = errors.New("not this table's account")

// Audit compares a table with ImageKit's library once, reads both and writes neither.
func Audit(ctx context.Context, c AuditConfig) (AuditReport, error) {
	if c.Library == nil || c.Rows == nil {
		return AuditReport{}, errors.New("audit: Library and Rows are required")
	}
	c.Sample, c.Examples, c.Slice = cmp.Or(c.Sample, 200), cmp.Or(c.Examples, 10), cmp.Or(c.Slice, 500)
	c.Patience = cmp.Or(c.Patience, 2*time.Minute)
	if c.Progress == nil {
		c.Progress = func(AuditProgress) {}
	}
	dir, err := os.MkdirTemp(c.TempDir, "trueup-audit-")
	if err != nil {
		return AuditReport{}, fmt.Errorf("audit: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a copy of ImageKit's answers; nothing hangs on it
	s, err := spool.Open(spool.Config{Dir: dir, ID: "audit"})
	if err != nil {
		return AuditReport{}, err
	}
	a := &audit{c: c, spool: s, random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))} //nolint:gosec // a sample, no secret
	begun := time.Now()
	err = errors.Join(a.run(ctx), s.Close())
	a.Seconds = time.Since(begun).Seconds()
	return a.AuditReport, err
}

// audit is one under way.
type audit struct {
	AuditReport
	c      AuditConfig
	spool  *spool.Spool
	random *rand.Rand
	shown  AuditProgress

	unlisted []string // a sample of them
	unequal  []spool.Entry
}

func (a *audit) run(ctx context.Context) error {
	if err := a.list(ctx); err != nil {
		return err
	}
	if err := a.compare(ctx); err != nil {
		return err
	}
	if err := a.lookUp(ctx); err != nil {
		return err
	}
	return a.conclude()
}

func (a *audit) show(change func(*AuditProgress)) {
	change(&a.shown)
	a.c.Progress(a.shown)
}

// compare brings rows and files together.
func (a *audit) compare(ctx context.Context) error {
	a.show(func(p *AuditProgress) { p.Phase = "compare" })
	sorted, err := a.spool.Sort(ctx)
	if err != nil {
		return err
	}
	local := func(yield func(run.Local) error) error {
		var last string
		return a.c.Rows.Local(ctx, func(l run.Local) error {
			if !a.admit(l, last) {
				return nil
			}
			last = l.FileID
			return yield(l)
		})
	}
	if err := merge(sorted.All(), local, func(l *spool.Entry, r *run.Local) error { return a.pair(ctx, l, r) }); err != nil {
		return err
	}
	return a.differ(ctx)
}

// admit counts a row and says whether it can be compared.
func (a *audit) admit(l run.Local, last string) bool {
	if a.Rows++; a.Rows%10_000 == 0 {
		a.show(func(p *AuditProgress) { p.Rows = a.Rows })
	}
	switch {
	case l.FileID == "":
		a.Nameless++
	case !file.ValidID(l.FileID):
		a.Invalid++
		a.example(&a.Of.Invalid, l.FileID)
	case l.FileID == last:
		a.Doubled++
		a.example(&a.Of.Doubled, l.FileID)
	default:
		return true
	}
	return false
}

func (a *audit) example(of *[]string, id string) {
	if len(*of) < a.c.Examples {
		*of = append(*of, short(id))
	}
}

// pair judges one file of which there is a row, a listing or both.
func (a *audit) pair(ctx context.Context, l *spool.Entry, r *run.Local) error {
	switch {
	case r == nil:
		a.NoRow++
		a.example(&a.Of.NoRow, l.FileID)
		return nil
	case l == nil:
		a.miss(r.FileID)
		return nil
	}
	a.matched++
	if r.Unowned {
		a.Unowned++
	}
	switch {
	case l.Unreadable: // counted when it was listed
	case l.Hash == r.Hash:
		a.Same++
	default:
		a.unequal = append(a.unequal, *l)
	}
	if len(a.unequal) == a.c.Slice {
		return a.differ(ctx)
	}
	return nil
}

// miss counts a row whose file is not listed, and keeps a fair sample of them.
func (a *audit) miss(id string) {
	a.Unlisted++
	if len(a.unlisted) < a.c.Sample {
		a.unlisted = append(a.unlisted, id)
		return
	}
	if i := a.random.Int64N(a.Unlisted); i < int64(a.c.Sample) {
		a.unlisted[i] = id
	}
}

// differ asks for the columns of the rows that are not what the listing shows. A row that
// agrees by now is the same.
func (a *audit) differ(ctx context.Context) error {
	if len(a.unequal) == 0 {
		return nil
	}
	snapshots := make([]*file.Snapshot, len(a.unequal))
	for i, e := range a.unequal {
		s, err := a.spool.Snapshot(e)
		if err != nil {
			return err
		}
		snapshots[i] = s
	}
	found, err := a.c.Rows.Differences(ctx, snapshots)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		a.count(s.ID, found[s.ID])
	}
	a.unequal = a.unequal[:0]
	return nil
}
