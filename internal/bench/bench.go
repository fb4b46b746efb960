package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"
)

// Config of a run. Self is required.
type Config struct {
	// Self is trueup's own binary: load, ImageKit's stand-in and the service that idles
	// are processes of their own.
	Self string
	// PartCommand is the hidden command of Self that runs a part. Required.
	PartCommand string
	// Version is written into the report.
	Version string
	// Pairs is how often each comparison is made; zero means 5.
	Pairs int
	// Slice is how long one side of a pair is measured where a time decides; zero means
	// 2 s.
	Slice time.Duration
	// Short measures only what does not depend on the clock, on little data.
	Short bool
	// Seed of everything drawn; zero means 1.
	Seed uint64
	// Dir is where the temporary folders are made, and so the disk that is measured;
	// empty means the system's.
	Dir string
	// PostgresBin is the folder of PostgreSQL's server programs; empty: they are found
	// or fetched.
	PostgresBin string
	// NoDownload forbids fetching PostgreSQL and Node's packages.
	NoDownload bool
	// Files is how many reconcile compares; zero means a million.
	Files int
	// Largest bounds growth's largest step, in multiples of its smallest; zero means 100.
	Largest int
	// Plot is the file that growth draws into; empty means none.
	Plot string
	// Profiles is a folder for profiles (processor, allocations, mutex, block) of what runs
	// in this process; empty: none are taken. They cost a little.
	Profiles string
	// Progress hears what is being measured; nil: nobody.
	Progress io.Writer
}

func (c Config) withDefaults() (Config, error) {
	if c.Self == "" || c.PartCommand == "" {
		return c, errors.New("bench: Self and PartCommand are required")
	}
	c.Pairs, c.Slice = cmp.Or(c.Pairs, 5), cmp.Or(c.Slice, 2*time.Second)
	c.Seed, c.Largest = cmp.Or(c.Seed, 1), cmp.Or(c.Largest, 100)
	c.Dir = cmp.Or(c.Dir, os.TempDir())
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c, nil
}

// measure is one of the bench's subjects.
type measure struct {
	name string
	run  func(*stage, context.Context) error
	// clock: it depends on the clock, so the short form leaves it out.
	clock bool
	// apart: not part of all, for the time it takes.
	apart bool
}

// measures in the order of all.
func measures() []measure {
	return []measure{
		{name: "ingest", run: (*stage).ingest, clock: true},
		{name: "guide", run: (*stage).guide, clock: true},
		{name: "drain", run: (*stage).drain, clock: true},
		{name: "verify", run: (*stage).verify},
		{name: "reconcile", run: (*stage).reconcile},
		{name: "latency", run: (*stage).latency, clock: true},
		{name: "idle", run: (*stage).idle, clock: true},
		{name: "growth", run: (*stage).growth, clock: true, apart: true},
		{name: "overload", run: (*stage).overload, clock: true, apart: true},
	}
}

// All is the name of all measures but growth and overload.
const All = "all"

// Names of what can be measured.
func Names() []string {
	var out []string
	for _, m := range measures() {
		if m.name != "guide" { // a part of ingest to whoever asks
			out = append(out, m.name)
		}
	}
	return append(out, All)
}

// chosen are the measures behind a name; ingest brings the guide along.
func chosen(name string, short bool) ([]measure, error) {
	var out []measure
	for _, m := range measures() {
		if name == m.name || name == "ingest" && m.name == "guide" || name == All && !m.apart {
			if !short || !m.clock {
				out = append(out, m)
			}
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case slices.Contains(Names(), name):
		return nil, fmt.Errorf("%s depends on the clock: it has no short form", name)
	}
	return nil, fmt.Errorf("%q is nothing that can be measured; choose one of %v", name, Names())
}

// Check says whether there is anything to measure.
func Check(name string, short bool) error {
	_, err := chosen(name, short)
	return err
}

// Run measures what name says. Its error means that there is no report, or that ctx
// ended; what failed by itself is in the report, beside the rest.
func Run(ctx context.Context, c Config, name string) (r *Report, err error) {
	c, err = c.withDefaults()
	if err != nil {
		return nil, err
	}
	todo, err := chosen(name, c.Short)
	if err != nil {
		return nil, err
	}
	s, err := newStage(c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, m := range todo {
		s.say("%s", m.name)
		if err := s.measure(ctx, m); err != nil {
			return nil, err
		}
	}
	s.report.Machine.LoadAfter = loadAverage()
	s.report.Seconds = time.Since(s.report.Began).Seconds()
	return s.report, nil
}

// measure runs one measure; only a stop is an error.
func (s *stage) measure(ctx context.Context, m measure) error {
	stop, err := s.profile(m.name)
	if err == nil {
		err = m.run(s, ctx)
		err = errors.Join(err, stop())
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var absent *absentError
	if errors.As(err, &absent) {
		s.report.NotRun = append(s.report.NotRun, NotRun{Name: m.name, Why: absent.why})
	} else if err != nil {
		s.report.NotRun = append(s.report.NotRun, NotRun{Name: m.name, Why: err.Error(), Failed: true})
	}
	return nil
}

// absentError is a measure whose means are not here.
type absentError struct{ why string }

func (e *absentError) Error() string { return "not run: " + e.why }

func absentf(format string, args ...any) error { return &absentError{fmt.Sprintf(format, args...)} }

// What of this process's waiting is sampled while profiles are taken: one contended lock
// in so many, one wait per so many nanoseconds of waiting.
const (
	mutexEvery = 100
	blockEvery = 100_000
)

// profile takes profiles of this process until stop: of the processor, and of what was
// allocated, contended and waited for since the run began (`go tool pprof -base` leaves
// out the measures before).
func (s *stage) profile(name string) (stop func() error, err error) {
	if s.Profiles == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(filepath.Join(s.Profiles, name+".cpu.prof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	runtime.SetMutexProfileFraction(mutexEvery)
	runtime.SetBlockProfileRate(blockEvery)
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{f.Close()}
		for _, kind := range []string{"allocs", "mutex", "block"} {
			errs = append(errs, s.lookUp(name, kind))
		}
		return errors.Join(errs...)
	}, nil
}

func (s *stage) lookUp(name, kind string) error {
	f, err := os.Create(filepath.Join(s.Profiles, name+"."+kind+".prof"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close())
}

func (s *stage) add(f Figure) { s.report.Figures = append(s.report.Figures, f) }

func (s *stage) note(format string, args ...any) {
	s.report.Notes = append(s.report.Notes, fmt.Sprintf(format, args...))
}

func (s *stage) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Progress, format+"\n", args...) // nobody to tell
}
