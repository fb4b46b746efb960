// Package verify asks ImageKit about files: it plans which questions to ask,
// shares and batches them, keeps them within one budget, repeats what failed for a
// moment, and tells a file's own trouble from an outage of the library.
//
// It is apart from the worker because it alone decides how to ask, and knows
// nothing of events, rows or what is written. Its one invariant: an answer never
// says more than was seen. A hit answers only what a hit may answer, every
// observation carries a fence drawn before its question left, and what could not
// be found out is a fault, never an absence.
//
// The way of one Look:
//
//	fence ──┬── needs a look-up ───────────────────────→ by id, ≤ 256 at once ─┐
//	        └── a hit may do, and ≥ SearchAt of them → search, ≤ 50 in each    ├─→ canary for absences
//	                 └── no hit, or not one that may answer → fresh fence → by id ┘
package verify

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/file"
)

// ErrLibraryOutage means that ImageKit as a whole does not answer, or does not let
// us in: a file known to exist fails, too. Nothing was learned about any file, and
// no attempt must be counted.
var ErrLibraryOutage = errors.New("not looked up: ImageKit as a whole did not answer")

// Library is ImageKit. Errors are *file.Fault; the answer beside one carries what
// its headers said.
type Library interface {
	// Details looks one file up by id.
	Details(ctx context.Context, id string) (file.Answer, error)
	// Search asks for many by one search; missing ones prove nothing.
	Search(ctx context.Context, ids []string) (file.Answer, error)
	// ListOne asks for any one file of the library.
	ListOne(ctx context.Context) (file.Answer, error)
}

// Fences draws one fence for the files about to be asked about, and says what the
// rows know of them. Its error wraps event.ErrOutage while the database is away.
type Fences interface {
	Fence(ctx context.Context, ids []string) (file.Fence, map[string]file.Known, error)
}

// Priority orders look-ups that wait for the same budget; lower goes first. Each
// class that waits gets at least every tenth call.
type Priority int

const (
	Live Priority = iota
	Replay
	Run
	classes // how many there are
)

func (p Priority) String() string {
	switch p {
	case Live:
		return "live"
	case Replay:
		return "replay"
	}
	return "run"
}

// Ask is one file to be looked at, with what its events demand of the answer.
type Ask struct {
	FileID   string
	Priority Priority
	// ByID: only a look-up will do.
	ByID bool
	// NewsOnly: a hit will do only if it says something that the rows do not know.
	NewsOnly bool
	// UpdatedAt: a hit will do if it is news, or at or after this. Zero means that a
	// hit must be news.
	UpdatedAt time.Time
	// AnyHit: any hit will do, because whoever writes it keeps to the order rule.
	AnyHit bool
	// Announced: ImageKit itself has said that the file is deleted.
	Announced bool
}

// Answer is what asking gave: exactly one of the two.
type Answer struct {
	Observation *file.Observation
	// Fault is this file's own trouble, after all tries.
	Fault *file.Fault
}

// Config of a Verifier. Library and Fences are required.
type Config struct {
	Library Library
	Fences  Fences
	// LiveFiles names up to n files that have a live row, are not suspect and not
	// announced deleted, other than those in except; zero means that none is known.
	LiveFiles func(ctx context.Context, n int, except []string) ([]string, error)
	// Prove opens the tickets inside a snapshot; zero means that nothing is proven.
	Prove func(*file.Snapshot) file.Proof
	// SearchAt is how many files must be searchable before a search pays; zero means 5.
	SearchAt int
	// Chunk is how many files one search asks for; zero means 50.
	Chunk int
	// Parallel bounds the calls that one Look has open at once; zero means 256, so that
	// those that hang leave room for the others. The budget bounds their rate.
	Parallel int
	// Waiting bounds the calls of one Look that wait for the budget at once; zero means
	// 16, so that a large Look cannot keep a small one waiting behind all it asks.
	Waiting int
	// Tries is how often a question is asked while its faults are transient; zero
	// means 3. A 429 is not a try: the budget makes it wait.
	Tries int
	// Patience is how long all tries of one question may take, not counting the wait
	// for the budget; zero means 3 s. Whoever shares a batch with a file that hangs waits
	// as long.
	Patience time.Duration
	// ProbePatience is the same for one question that only tests whether ImageKit
	// answers; zero means 5 s.
	ProbePatience time.Duration
	// ProbeAgain is how long searching by id stays off once ImageKit has refused it,
	// and how long a learned limit on its size lasts; zero means 10 minutes.
	ProbeAgain time.Duration
	// CanaryFor is how long a 200 vouches that the key still sees our library; zero
	// means 50 s, which leaves 10 of the 60 s allowed for the write. For a 404 of a file
	// that nobody has announced deleted only a 200 from after the look vouches; for its
	// second one from between the two has to as well.
	CanaryFor time.Duration
	// Budget of all calls; zero fields mean the defaults named there.
	Budget BudgetConfig
	// Step is told when pure work on what ImageKit said of a file begins, and calls back
	// when it ends, so that somebody may watch over it; zero tells nobody.
	Step func(fileID string) (end func())
	// Metrics to count in; zero counts nothing.
	Metrics *Metrics
	// Random spreads the tries, and is the Budget's where that has none; nil means the
	// runtime's own.
	Random chance.Source
}

// Verifier asks ImageKit within one budget. It is safe for concurrent use; the
// caller sees to it that no two Looks at once hold the same file.
type Verifier struct {
	Config
	budget *Budget
	recent *recent
	search searchState

	listing  alone     // guards listedAt
	listedAt time.Time // when ListOne last answered, for the empty library
}

// New returns a Verifier. It asks nothing.
func New(c Config) (*Verifier, error) {
	if c.Library == nil || c.Fences == nil {
		return nil, errors.New("verify: Library and Fences are required")
	}
	c.SearchAt = cmp.Or(c.SearchAt, 5)
	c.Chunk = cmp.Or(c.Chunk, 50)
	c.Parallel = cmp.Or(c.Parallel, 256)
	c.Waiting = cmp.Or(c.Waiting, 16)
	c.Tries = cmp.Or(c.Tries, 3)
	c.Patience = cmp.Or(c.Patience, 3*time.Second)
	c.ProbePatience = cmp.Or(c.ProbePatience, 5*time.Second)
	c.ProbeAgain = cmp.Or(c.ProbeAgain, 10*time.Minute)
	c.CanaryFor = cmp.Or(c.CanaryFor, 50*time.Second)
	if c.LiveFiles == nil {
		c.LiveFiles = func(context.Context, int, []string) ([]string, error) { return nil, nil }
	}
	if c.Step == nil {
		c.Step = func(string) func() { return func() {} }
	}
	if c.Prove == nil {
		c.Prove = func(*file.Snapshot) file.Proof { return file.Proof{} }
	}
	if c.Budget.Random == nil {
		c.Budget.Random = c.Random
	}
	return &Verifier{Config: c, budget: newBudget(c.Budget), recent: &recent{}, listing: newAlone()}, nil
}

// Status says how the budget stands.
func (v *Verifier) Status() BudgetStatus { return v.budget.status() }

// Look asks about each file and answers in the order of asks. Its error means that
// nothing may be concluded about any of them: it wraps event.ErrOutage when no
// fence could be drawn, ErrLibraryOutage when ImageKit as a whole is away, or the
// context's error.
//
// Asks for one file are merged into one question. A panic over one file is that
// file's own fault and disturbs no other; one over a whole search costs its files a
// look-up by id each, at most Chunk. Any other panic (over a fence, or in planning)
// comes out of Look itself, in the caller's goroutine. Observations may be shared
// between asks for one file and must not be changed.
func (v *Verifier) Look(ctx context.Context, asks []Ask) ([]Answer, error) {
	if len(asks) == 0 {
		return nil, nil
	}
	merged, at := merge(asks)
	v.Metrics.coalesced(len(asks) - len(merged))
	l := &oneLook{v: v, asks: merged, answers: make([]Answer, len(merged)), slots: make(chan struct{}, v.Parallel), probing: newAlone()}
	if err := l.run(ctx); err != nil {
		if p := panicIn(err); p != nil {
			panic(p)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	answers := make([]Answer, len(asks))
	for i := range asks {
		answers[i] = l.answers[at[i]]
	}
	return answers, nil
}
