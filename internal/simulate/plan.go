package simulate

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Plan is everything one run does, drawn from its seed before it begins. Each act and
// fault carries its own chance, so that leaving one out changes nothing of the others:
// that is what makes a failing plan shrink.
type Plan struct {
	Seed   uint64
	Shape  Shape
	Acts   []Act   // by time
	Faults []Fault // by time
}

// Shape is the installation and its surroundings.
type Shape struct {
	Ingests, Workers int // both zero: `serve`, everything in one process
	Signed           bool
	TicketField      string
	Files            int // in the library before anything runs
	Users            int

	AbsentConfirm, NotFoundGrace, RetryMaxAge time.Duration
	ReconcileEvery, PollEvery                 time.Duration

	ListLag, VisibleAfter time.Duration
	Rate                  float64 // ImageKit's calls a second; zero: no limit
	NoIDSearch            bool
	Schemes               string // of webhook signatures
	VersionEvents         bool
	OverwriteAlso         bool
	DropRate              float64 // of webhooks
	DuplicateRate         float64
	ReorderRate           float64
	LateRate              float64
	Late                  time.Duration // how late the late ones are

	Safety time.Duration // how long the first phase lasts
	Brisk  bool          // short, with fewer acts
}

// Serve reports whether all roles are in one process.
func (s Shape) Serve() bool { return s.Ingests == 0 }

// Act is one thing that somebody does.
type Act struct {
	At     time.Duration
	Kind   ActKind
	Chance uint64 // what the act's own details are drawn from
}

// ActKind says what is done.
type ActKind string

// The acts, by who does them. Weights are in actWeights.
const (
	UploadV1      ActKind = "upload-v1"
	UploadV2      ActKind = "upload-v2"
	UploadServer  ActKind = "upload-server"
	Overwrite     ActKind = "overwrite"
	SamePath      ActKind = "same-path"
	Move          ActKind = "move"
	Rename        ActKind = "rename"
	Edit          ActKind = "edit"
	Delete        ActKind = "delete"
	DeleteMany    ActKind = "delete-many"
	ForgeTicket   ActKind = "forge-ticket"
	CopyTicket    ActKind = "copy-ticket"
	Report        ActKind = "report"
	ReportTwice   ActKind = "report-twice"
	ReportEarly   ActKind = "report-early"
	ReportForeign ActKind = "report-foreign"
	ReportForged  ActKind = "report-forged"
	ReportMany    ActKind = "report-many"
	ReportRivals  ActKind = "report-rivals"
	BadToken      ActKind = "bad-token"
	UnknownHook   ActKind = "unknown-webhook"
	ReplayHook    ActKind = "replay-webhook"
	BadSignature  ActKind = "bad-signature"
	HintHook      ActKind = "hint-webhook"
	RowDeleted    ActKind = "row-deleted"
	RowCorrupted  ActKind = "row-corrupted"
	RowInserted   ActKind = "row-inserted"
	TableEmptied  ActKind = "table-emptied"
	ReplayDead    ActKind = "replay-dead"
	Recheck       ActKind = "recheck"
	PauseResume   ActKind = "pause-resume"
	Assign        ActKind = "assign"
	RunNow        ActKind = "run-now"
	PlanApply     ActKind = "plan-apply"
	CancelRun     ActKind = "cancel-run"
	ReleaseFuse   ActKind = "release-fuse"
)

// actWeights say how often each act is drawn.
var actWeights = []struct {
	kind   ActKind
	weight int
}{
	{UploadV1, 10}, {UploadV2, 12}, {UploadServer, 5}, {Overwrite, 6}, {SamePath, 3}, {Move, 3}, {Rename, 3},
	{Edit, 8}, {Delete, 8}, {DeleteMany, 1}, {ForgeTicket, 1}, {CopyTicket, 2},
	{Report, 10}, {ReportTwice, 3}, {ReportEarly, 3}, {ReportForeign, 4}, {ReportForged, 3}, {ReportMany, 3}, {ReportRivals, 5}, {BadToken, 1},
	{UnknownHook, 2}, {ReplayHook, 2}, {BadSignature, 2}, {HintHook, 5},
	{RowDeleted, 3}, {RowCorrupted, 4}, {RowInserted, 2}, {TableEmptied, 1},
	{ReplayDead, 3}, {Recheck, 3}, {PauseResume, 2}, {Assign, 2}, {RunNow, 3}, {PlanApply, 2}, {CancelRun, 1}, {ReleaseFuse, 2},
}

// Fault is one thing that goes wrong, once or for a while.
type Fault struct {
	At     time.Duration
	For    time.Duration // how long it may fire; for those that last, how long it lasts
	Cell   string        // the cell it fills; names what it does
	Share  float64       // of the calls it meets
	Times  int           // it fires at most; zero: no bound
	Chance uint64
}

// draw is what a plan is drawn with.
type draw struct{ *rand.Rand }

func newDraw(seed, stream uint64) draw { return draw{rand.New(rand.NewPCG(seed, stream))} }

func (d draw) chance(p float64) bool { return d.Float64() < p }

// span is a duration between the two, more often a short one.
func (d draw) span(least, most time.Duration) time.Duration {
	f := d.Float64()
	return least + time.Duration(f*f*float64(most-least))
}

func one[T any](d draw, of ...T) T { return of[d.IntN(len(of))] }

// NewPlan draws the plan of a seed.
func NewPlan(seed uint64) Plan {
	p := Plan{Seed: seed}
	p.Shape = drawShape(newDraw(seed, 1))
	if d := newDraw(seed, 5); seed >= brisk && d.chance(0.9) {
		p.Shape.hurry(d)
	}
	p.Acts = drawActs(newDraw(seed, 2), p.Shape)
	p.Faults = drawFaults(newDraw(seed, 3), p.Shape)
	if seed >= denser {
		p.Faults = append(p.Faults, drawMore(newDraw(seed, 4), p.Shape)...)
		slices.SortStableFunc(p.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	}
	return p
}

// denser is the seed from which on plans have more faults on calls of the database and the
// queue, because a few hundred plans left some of their cells empty. Those before it are
// drawn as they were when they found something: testdata/seeds depends on it.
const denser = 100_000

// brisk is the seed from which on nine plans in ten are short: 9 to 26 acts and as many
// faults as the others have, in at most four minutes. They take less than half of the work;
// what needs long spans and many acts is left to the tenth.
const brisk = 1_000_000

// hurry shortens what a run waits for.
func (s *Shape) hurry(d draw) {
	s.Brisk = true
	s.Safety = d.span(30*time.Second, 4*time.Minute)
	s.ReconcileEvery = one(d, 2*time.Minute, 5*time.Minute)
	s.NotFoundGrace = min(s.NotFoundGrace, time.Minute)
	s.VisibleAfter = min(s.VisibleAfter, s.NotFoundGrace/2)
	s.RetryMaxAge = min(s.RetryMaxAge, 5*time.Minute)
	s.Late = min(s.Late, s.Safety+2*time.Minute)
}

// drawMore are faults that wait for their call until the end of the first phase.
func drawMore(d draw, s Shape) []Fault {
	faults := make([]Fault, 2+d.IntN(3))
	for i := range faults {
		at := time.Duration(d.Float64() * 0.7 * float64(s.Safety))
		faults[i] = Fault{At: at, For: s.Safety - at, Cell: one(d, sortedKeys(doorCells)...) + "/" + one(d, sides...),
			Share: one(d, 0.3, 1.0), Times: 1, Chance: d.Uint64()}
	}
	return faults
}

func drawShape(d draw) Shape {
	s := Shape{
		Signed: d.chance(0.25), Users: 2 + d.IntN(4), Files: one(d, 0, 1, 3, 8, 15, 30),
		AbsentConfirm: one(d, 5*time.Second, 20*time.Second, time.Minute), NotFoundGrace: one(d, 10*time.Second, time.Minute, 15*time.Minute),
		RetryMaxAge: one(d, 30*time.Second, 5*time.Minute, time.Hour), ReconcileEvery: one(d, 5*time.Minute, 10*time.Minute, 30*time.Minute),
		PollEvery: one(d, 0, 0, 30*time.Second, time.Minute), Rate: one(d, 0.0, 0, 5, 40), NoIDSearch: d.chance(0.1),
		Schemes: one(d, "both", "both", "standard", "legacy"), VersionEvents: d.chance(0.7), OverwriteAlso: d.chance(0.3),
		DropRate: one(d, 0, 0, 0.3, 1), DuplicateRate: one(d, 0, 0.2, 0.5), ReorderRate: one(d, 0, 0.3), LateRate: one(d, 0, 0, 0.2),
		Safety: d.span(30*time.Second, 20*time.Minute),
	}
	s.Late = d.span(2*time.Minute, s.Safety+20*time.Minute)
	if !d.chance(0.35) {
		s.Ingests, s.Workers = 1+d.IntN(2), 1+d.IntN(2)
	}
	if d.chance(0.005) {
		// Days of idling are dear even where they take no time, so little else happens in them.
		s.LateRate, s.Late = 0.3, time.Duration(1+d.IntN(3))*24*time.Hour
		s.ReconcileEvery, s.PollEvery, s.Workers = 6*time.Hour, 0, min(s.Workers, 1)
	}
	if d.chance(0.3) {
		s.TicketField = "ticket"
	}
	if d.chance(0.25) {
		s.ListLag = d.span(time.Second, 90*time.Second)
	}
	if d.chance(0.25) {
		s.VisibleAfter = d.span(time.Second, s.NotFoundGrace/2)
	}
	return s
}

func drawActs(d draw, s Shape) []Act {
	total := 0
	for _, w := range actWeights {
		total += w.weight
	}
	n := 10 + d.IntN(51)
	if s.Brisk {
		n = 6 + n/3
	}
	acts := make([]Act, n)
	for i := range acts {
		at, kind := d.IntN(total), ActKind("")
		for _, w := range actWeights {
			if at -= w.weight; at < 0 {
				kind = w.kind
				break
			}
		}
		acts[i] = Act{At: time.Duration(d.Float64() * float64(s.Safety)), Kind: kind, Chance: d.Uint64()}
	}
	slices.SortFunc(acts, func(a, b Act) int { return cmp.Compare(a.At, b.At) })
	return acts
}

// lasting are the faults that are a state of the world rather than of one call.
var lasting = []struct {
	cell        string
	least, most time.Duration
	weight      int
}{
	{"database/away", time.Second, 8 * time.Minute, 3},
	{"queue/full", time.Second, 2 * time.Minute, 2},
	{"process/worker/kill9", 100 * time.Millisecond, 20 * time.Second, 5},
	{"process/ingest/kill9", 100 * time.Millisecond, 20 * time.Second, 4},
	{"process/worker/stop", 100 * time.Millisecond, 5 * time.Second, 2},
	{"process/ingest/stop", 100 * time.Millisecond, 5 * time.Second, 2},
	{"process/worker/stall", 10 * time.Second, 3 * time.Minute, 3},
	{"process/ingest/clock", time.Second, 15 * time.Minute, 2},
	{"imagekit/details/404-flicker", time.Second, time.Minute, 3},
	{"imagekit/details/stale", time.Second, time.Minute, 2},
	{"imagekit/list/empty", time.Second, 5 * time.Minute, 2},
	{"imagekit/account/revoked-401", time.Second, 5 * time.Minute, 2},
	{"imagekit/account/restricted-403", time.Second, 5 * time.Minute, 2},
	{"imagekit/account/another", time.Second, 15 * time.Minute, 2},
}

// drawFaults gives a run 2 to 14 faults: some on calls, some that last. One plan in ten
// has none, so that what faults hide is seen, too.
func drawFaults(d draw, s Shape) []Fault {
	if d.chance(0.1) {
		return nil
	}
	faults := make([]Fault, 2+d.IntN(13))
	for i := range faults {
		f := Fault{At: time.Duration(d.Float64() * float64(s.Safety)), Chance: d.Uint64()}
		switch {
		case d.chance(0.35):
			f.lasts(d)
		case d.chance(0.45):
			f.Cell = "imagekit/" + one(d, "details", "details", "list") + "/" + one(d, sortedKeys(imagekitFaults)...)
			f.calls(d, s)
		case d.chance(0.12):
			f.Cell = one(d, "network/request-lost", "network/answer-lost")
			f.calls(d, s)
		default:
			f.Cell = one(d, sortedKeys(doorCells)...) + "/" + one(d, sides...)
			f.calls(d, s)
		}
		faults[i] = f
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return faults
}

func (f *Fault) lasts(d draw) {
	total := 0
	for _, l := range lasting {
		total += l.weight
	}
	at := d.IntN(total)
	for _, l := range lasting {
		if at -= l.weight; at < 0 {
			f.Cell, f.For = l.cell, d.span(l.least, l.most)
			return
		}
	}
}

// calls makes it one that meets calls: a few of them, or a share of many.
func (f *Fault) calls(d draw, s Shape) {
	f.For, f.Share, f.Times = d.span(time.Second, s.Safety), one(d, 0.1, 0.5, 1.0), one(d, 1, 1, 2, 5, 0)
	if strings.Contains(f.Cell, "killed") {
		f.Times = 1
	}
	if f.Times == 0 {
		f.For = min(f.For, 2*time.Minute)
	}
}

// String is the whole plan, for whoever has to understand a failure.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n  %+v\n", p.Seed, p.Shape)
	for _, a := range p.Acts {
		fmt.Fprintf(&b, "  act   %-10s %s (%#x)\n", a.At.Round(time.Millisecond), a.Kind, a.Chance)
	}
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "  fault %-10s %s for %s, share %v, times %d (%#x)\n", f.At.Round(time.Millisecond), f.Cell, f.For.Round(time.Millisecond), f.Share, f.Times, f.Chance)
	}
	return b.String()
}
