package campaign

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// schedule is one round of the campaign of processes: what people, clients and ImageKit
// do, and what breaks meanwhile. It follows from its seed alone. When each step takes
// effect does not: these are real processes in real time.
type schedule struct {
	Seed   uint64
	Nodes  int // nats-servers of the installation
	Lasts  time.Duration
	Files  []drawnFile
	Mood   mood // of the webhooks' way; Roll is not set
	Acts   []act
	Faults []drawnFault
}

// drawnFile is a file that is, or comes, into the library.
type drawnFile struct {
	Name   string
	Ticket string // the user whose signed upload it is; empty: the application's server's
	Before bool   // it was there before anything broke
}

// act is one thing that somebody does.
type act struct {
	At   time.Duration
	What string // upload, report, reports, webhook, replay, forged, overwrite, move, edit, delete, sql-…, unknown
	File int
	User string
	N    int
	// Keen senders send again until they are answered 2xx.
	Keen bool
}

func (a act) String() string {
	return fmt.Sprintf("%6s %-14s file %d %s n %d keen %t", a.At.Round(time.Millisecond), a.What, a.File, a.User, a.N, a.Keen)
}

var users = []string{"ann", "bob", "cid"}

// nodesOf is how many nats-servers a seed's installation has: three for every fourth.
func nodesOf(seed uint64) int {
	if seed%4 == 0 {
		return 3
	}
	return 1
}

// drawSchedule makes the schedule of a seed.
func drawSchedule(seed uint64) schedule {
	d := &dice{rand.New(rand.NewPCG(seed, 0x7472756575700005))}
	s := schedule{Seed: seed, Nodes: nodesOf(seed), Lasts: d.between(3*time.Second, 6*time.Second)}
	if d.IntN(3) > 0 { // else the way is perfect
		s.Mood = mood{Drop: d.Float64() * 0.2, Twice: d.Float64() * 0.4, Late: d.Float64() * 0.5, By: 1500 * time.Millisecond}
	}
	s.Files = d.files(seed)
	s.Acts = d.acts(&s)
	s.Faults = d.faults(&s)
	return s
}

// story is the schedule in full, for whoever has to find out what happened.
func (s schedule) story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nats-servers, %s of traffic, mood drop %.2f twice %.2f late %.2f\n", s.Seed, s.Nodes, s.Lasts, s.Mood.Drop, s.Mood.Twice, s.Mood.Late)
	for i, f := range s.Files {
		fmt.Fprintf(&b, "  file %d %+v\n", i, f)
	}
	for _, a := range s.Acts {
		fmt.Fprintf(&b, "  %s\n", a)
	}
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	return b.String()
}

type dice struct{ *rand.Rand }

func (d *dice) between(from, to time.Duration) time.Duration {
	return (from + time.Duration(d.Int64N(int64(to-from)))).Round(time.Millisecond)
}

func (d *dice) chance(p float64) bool { return d.Float64() < p }

func pick[T any](d *dice, of []T) T { return of[d.IntN(len(of))] }

func (d *dice) files(seed uint64) []drawnFile {
	all := make([]drawnFile, 8+d.IntN(8))
	for i := range all {
		all[i] = drawnFile{Name: fmt.Sprintf("f%d-%d.png", seed, i), Before: d.chance(0.5)}
		if d.chance(0.4) {
			all[i].Ticket = pick(d, users)
		}
	}
	return all
}

// acts: most files are reported, some by several and several times; a third change or
// go again; people and forgers have their share.
func (d *dice) acts(s *schedule) []act {
	var acts []act
	add := func(at time.Duration, what string, file int, a act) {
		a.At, a.What, a.File = min(at, s.Lasts), what, file
		acts = append(acts, a)
	}
	for i, f := range s.Files {
		born := time.Duration(0)
		if !f.Before {
			born = d.between(0, s.Lasts*2/3)
			add(born, "upload", i, act{N: d.IntN(1 << 16)})
		}
		later := func() time.Duration { return born + d.between(0, max(s.Lasts-born, time.Millisecond)) }
		d.reports(f, born, s.Lasts, func(at time.Duration, a act) { add(at, "report", i, a) })
		for d.chance(0.35) {
			add(later(), pick(d, []string{"overwrite", "edit", "edit", "move"}), i, act{N: d.IntN(1 << 16)})
		}
		if d.chance(0.2) {
			add(later(), "delete", i, act{})
		}
		for d.chance(0.25) {
			add(later(), "webhook", i, act{N: d.IntN(4), Keen: d.chance(0.3)})
		}
	}
	d.peoplesActs(s, add)
	slices.SortStableFunc(acts, func(a, b act) int { return cmp.Compare(a.At, b.At) })
	return acts
}

// reports of one file: by the one whose upload it is, soon after it; again; and by
// somebody who has no business with it.
func (d *dice) reports(f drawnFile, born, lasts time.Duration, add func(time.Duration, act)) {
	owner := cmp.Or(f.Ticket, pick(d, users))
	soon := func() time.Duration { return born + d.between(0, time.Second) }
	if d.chance(0.8) {
		add(soon(), act{User: owner, Keen: d.chance(0.7)})
	}
	for d.chance(0.3) {
		add(soon()+d.between(0, lasts/2), act{User: owner, Keen: d.chance(0.5), N: 1})
	}
	if d.chance(0.2) {
		add(soon()+d.between(0, lasts/2), act{User: "mallory", Keen: d.chance(0.5)})
	}
}

func (d *dice) peoplesActs(s *schedule, add func(time.Duration, string, int, act)) {
	whichever := func() int { return d.IntN(len(s.Files)) }
	at := func() time.Duration { return d.between(0, s.Lasts) }
	for d.chance(0.5) {
		add(at(), pick(d, []string{"sql-update", "sql-owner", "sql-delete"}), whichever(), act{User: "mallory"})
	}
	if d.chance(0.15) {
		add(at(), "sql-bogus", whichever(), act{N: d.IntN(1 << 20)})
	}
	if d.chance(0.15) {
		add(at(), "sql-adopt", whichever(), act{User: "zoe"})
	}
	for d.chance(0.4) {
		add(at(), "unknown", whichever(), act{User: pick(d, users), N: d.IntN(1 << 20)})
	}
	for d.chance(0.4) {
		add(at(), "forged", whichever(), act{})
	}
	for d.chance(0.5) {
		add(at(), "replay", whichever(), act{N: d.IntN(1 << 16)})
	}
	if d.chance(0.3) {
		add(at(), "reports", whichever(), act{User: pick(d, users), Keen: true})
	}
}
