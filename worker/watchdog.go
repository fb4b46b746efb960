package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"
)

// Watchdog ends the process when one event's pure work (never a wait for an answer)
// does not come to an end, or eats the memory: a goroutine cannot be stopped from
// outside. Before that it writes the event's mark, with the stack, so that the next
// process tries the event alone, and after a second time parks it.
//
// While no batch is under way it sleeps, so that an idle process stays idle.
type Watchdog struct {
	WatchdogConfig
	log   *slog.Logger
	blame func(ctx context.Context, ids []string, stack string) error
	// acquitBut takes back the marks of all others on trial: the process is not ending
	// over them.
	acquitBut func(guilty []string)

	mu    sync.Mutex
	posts map[*post]struct{}
	files map[string][]string // the events under way, by fileId
	busy  chan struct{}
}

// WatchdogConfig of a Watchdog. Restart is required.
type WatchdogConfig struct {
	// Restart ends this process and starts it again. It should not return.
	Restart func(reason string)
	// StepLimit is how long one step of pure work may take; zero means 5 s. Real ones
	// take microseconds.
	StepLimit time.Duration
	// MemoryLimit is how many bytes the process may hold; zero means that memory is not
	// watched. Only an event at work when it is passed is ever blamed: more rows, or a
	// busy ingest, restart nobody.
	MemoryLimit uint64
	// Memory reads how many bytes the process holds; zero means what the Go runtime has
	// from the system and not given back.
	Memory func() uint64
}

const (
	// looksPerLimit is how often a step is seen before it is too long. Looks are counted
	// rather than time: a process that was stopped for a while has not been working.
	looksPerLimit = 50
	blamePatience = 2 * time.Second
)

// NewWatchdog returns a watchdog that watches nothing until a worker runs with it.
func NewWatchdog(c WatchdogConfig) *Watchdog {
	if c.StepLimit == 0 {
		c.StepLimit = 5 * time.Second
	}
	if c.Memory == nil {
		c.Memory = heldByRuntime
	}
	return &Watchdog{WatchdogConfig: c, posts: map[*post]struct{}{}, files: map[string][]string{}, busy: make(chan struct{}, 1)}
}

// post is where one goroutine says what it is working on. Its fields are guarded by
// the watchdog's mu.
type post struct {
	dog       *Watchdog
	goroutine string
	ids       []string // events of the step under way; nil between steps
	looks     int      // how often the step was seen
}

// post opens one for the calling goroutine. A nil watchdog watches nothing.
func (d *Watchdog) post() *post {
	p := &post{dog: d}
	if d == nil {
		return p
	}
	p.goroutine = thisGoroutine()
	d.mu.Lock()
	d.posts[p] = struct{}{}
	d.mu.Unlock()
	signal(d.busy)
	return p
}

func (p *post) close() {
	if p.dog != nil {
		p.dog.mu.Lock()
		delete(p.dog.posts, p)
		p.dog.mu.Unlock()
	}
}

// begin says that pure work on these events begins; end says that it has ended.
func (p *post) begin(ids ...string) {
	if p.dog != nil {
		p.dog.mu.Lock()
		p.ids, p.looks = ids, 0
		p.dog.mu.Unlock()
	}
}

func (p *post) end() { p.begin() }

// Step watches pure work on a file whose events are under way, until end is called;
// see verify.Config.Step. A nil watchdog watches nothing.
func (d *Watchdog) Step(fileID string) (end func()) {
	if d == nil {
		return func() {}
	}
	d.mu.Lock()
	ids := d.files[fileID]
	d.mu.Unlock()
	if ids == nil {
		return func() {} // nobody's event: a canary, a probe
	}
	p := d.post()
	p.begin(ids...)
	return p.close
}

// know says which events are under way on each file, until forget is called.
func (d *Watchdog) know(groups []group) (forget func()) {
	if d == nil {
		return func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range groups {
		ids := make([]string, len(g.events))
		for i, p := range g.events {
			ids[i] = p.ID
		}
		d.files[g.fileID] = ids
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, g := range groups {
			delete(d.files, g.fileID)
		}
	}
}

// run watches until ctx is done, or has restarted the process.
func (d *Watchdog) run(ctx context.Context) error {
	if d == nil {
		return nil
	}
	tick := time.NewTimer(d.StepLimit / looksPerLimit)
	defer tick.Stop()
	for {
		if !d.watching() {
			select {
			case <-d.busy:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		tick.Reset(d.StepLimit / looksPerLimit)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if p, reason := d.look(); p != nil {
			d.bite(ctx, p, reason)
			return nil
		}
	}
}

func (d *Watchdog) watching() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.posts) > 0
}

// caughtPost is a post as it was when its step was found to be poison.
type caughtPost struct {
	goroutine string
	ids       []string
	stuck     bool // beyond doubt: its step does not end. Whose memory it is, nobody knows
}

// look finds the step that has been under way for longest, and says what is wrong with
// it; nil when nothing is.
func (d *Watchdog) look() (*caughtPost, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var longest *post
	for p := range d.posts {
		if p.ids == nil {
			continue
		}
		if p.looks++; longest == nil || p.looks > longest.looks {
			longest = p
		}
	}
	if longest == nil {
		return nil, ""
	}
	found := &caughtPost{goroutine: longest.goroutine, ids: longest.ids}
	switch {
	case longest.looks > looksPerLimit:
		found.stuck = true
		return found, fmt.Sprintf("one step of work on an event took longer than %s", d.StepLimit)
	case d.MemoryLimit > 0 && longest.looks > 1 && d.Memory() > d.MemoryLimit:
		return found, fmt.Sprintf("the process holds more than %d MiB while it works on one event", d.MemoryLimit>>20)
	}
	return nil, ""
}

// bite writes the mark and ends the process. Where the mark cannot be written in time
// the process ends all the same: the redelivery makes the event a suspect.
func (d *Watchdog) bite(ctx context.Context, p *caughtPost, reason string) {
	stack := stackOf(p.goroutine)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), blamePatience)
	defer cancel()
	err := d.blame(ctx, p.ids, stack)
	if p.stuck && d.acquitBut != nil {
		d.acquitBut(p.ids)
	}
	d.log.ErrorContext(ctx, "worker.restart", "reason", reason, "events", p.ids, "marked", err == nil, "error", errText(err), "stack", stack)
	d.Restart(reason)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// thisGoroutine names the calling goroutine as a dump of all stacks does.
func thisGoroutine() string {
	var buf [64]byte
	words := bytes.Fields(buf[:runtime.Stack(buf[:], false)]) // goroutine 12 [running]: …
	return string(words[0]) + " " + string(words[1])
}

// stackOf finds one goroutine's stack in a dump of all.
func stackOf(goroutine string) string {
	buf := make([]byte, 4<<20)
	for _, one := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if bytes.HasPrefix(one, []byte(goroutine+" ")) {
			return excerpt(string(one), maxStack)
		}
	}
	return goroutine + ": its stack was not among the first " + strconv.Itoa(len(buf)>>20) + " MiB"
}

// heldByRuntime is what GOMEMLIMIT counts: memory from the system less what was given
// back.
func heldByRuntime() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}
