package simulate

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/simulate/fault"
)

// steps are the calls behind each name in doorCells.
var steps = map[fault.Door]map[string]string{
	fault.Rows: {
		"BeginTurn": "turn", "Turn": "turn", "Settle": "settle", "Due": "due", "Fence": "fence", "LiveFiles": "canary",
		"Mark": "trial", "Trials": "trial", "Acquit": "trial", "Blame": "trial",
		"StartRun": "run", "OpenRun": "run", "LastRuns": "run", "SaveRun": "run", "FinishRun": "run", "ApplyRun": "run", "CancelRun": "run",
		"KnownFiles": "compare", "Hash": "compare", "Local": "compare", "Differences": "compare", "ForPlan": "compare",
		"SaveFindings": "findings", "OpenFindings": "findings", "CloseFindings": "findings", "TakeFindings": "findings",
		"ConfirmFindings": "findings", "Unsettled": "findings",
		"Repair": "repair", "LatchFuse": "brakes", "Fuse": "brakes", "DoubtAccount": "brakes", "Account": "brakes",
		"PollPosition": "poll", "SavePollPosition": "poll",
		"TakeReplays": "letters", "ConfirmReplays": "letters", "TakeRechecks": "letters", "ConfirmRechecks": "letters",
		"DiscardSlice": "letters", "FinishJob": "letters", "SetJobWaiting": "letters", "Outstanding": "letters", "StartJob": "letters",
		"CancelJob": "letters", "OpenJobs": "letters", "SetPaused": "letters", "Assign": "letters", "Import": "letters",
	},
	fault.Queue: {
		"Publish": "publish", "Store": "publish", "Next": "next", "Ack": "ack", "Extend": "ack", "Release": "ack",
		"TakeTurn": "turn", "LookTurn": "turn", "RenewTurn": "turn", "EndTurn": "turn", "Tell": "notice",
	},
}

// stepOf names the step of a call as doorCells has it; what is not listed reads.
func stepOf(c fault.Call) string {
	if step, ok := steps[c.Door][c.Method]; ok {
		return string(c.Door) + "/" + step
	}
	if c.Door == fault.Rows {
		return "rows/read"
	}
	return string(c.Door) + "/" + strings.ToLower(c.Method)
}

var (
	errKilled = errors.New("the process has been killed")
	errFailed = errors.New("connection lost")
	errAway   = errors.New("connection refused")
)

// hook stands around every call that an incarnation makes of its doors. A call takes its
// time there and back; in between it happens, or does not.
func (p *process) hook(ctx context.Context, c fault.Call, do func() error) error {
	w := p.world
	said := ""
	err := p.way(ctx, c, do, &said)
	if err != nil {
		said += " " + short(err)
	} else if c.Method == "BeginTurn" {
		w.record.started() // it cannot know what another was told
	}
	w.trace.say(p.name, "%s.%s %s%s", c.Door, c.Method, c.Key, said)
	return err
}

// short is an error without what may differ from run to run.
func short(err error) string {
	s := err.Error()
	if len(s) > 100 {
		s = s[:100]
	}
	return "! " + s
}

func (p *process) way(ctx context.Context, c fault.Call, do func() error, said *string) error {
	w := p.world
	there, back := w.latency(c)
	if err := p.travel(ctx, there); err != nil {
		return err
	}
	step := stepOf(c)
	side := w.strike(step)
	if side != "" {
		*said = " [" + side + "]"
	}
	switch side {
	case "failed-before":
		return fmt.Errorf("simulated: %w", errFailed)
	case "killed-before":
		w.kill(p)
	case "slow":
		if err := p.travel(ctx, w.slowness(c)); err != nil {
			return err
		}
	}
	if c.Door == fault.Rows && w.away() {
		return fmt.Errorf("simulated: %w", errAway)
	}
	if p.dead.Load() {
		return p.rest(ctx)
	}
	err := do()
	switch side {
	case "failed-after":
		if err == nil {
			err = fmt.Errorf("simulated: reply: %w", errFailed)
		}
	case "killed-after":
		w.kill(p)
	}
	if lost := p.travel(ctx, back); lost != nil {
		return lost // it happened; whoever asked will not hear of it
	}
	return err
}

// travel waits for d and for the end of a stall; a dead process gets nowhere.
func (p *process) travel(ctx context.Context, d time.Duration) error {
	err := sleep(ctx, d)
	for {
		if p.dead.Load() {
			return p.rest(ctx)
		}
		left := time.Until(p.stalledUntil())
		if left <= 0 {
			return err
		}
		time.Sleep(min(left, time.Second)) //nolint:forbidigo // virtual time; a stopped process does not notice that its context is done
	}
}

// rest keeps what is left of a killed process from spinning until it has ended.
func (p *process) rest(ctx context.Context) error {
	_ = sleep(ctx, time.Second)
	return errKilled
}

func sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// farthest is the longest way to ImageKit.
const farthest = 150 * time.Millisecond

// latency is what this call takes, there and back: always the same for the n-th call
// about the same thing, and hardly ever the same as any other's.
func (w *world) latency(c fault.Call) (there, back time.Duration) {
	h := w.lot(string(c.Door) + "." + c.Method + " " + c.Key)
	least, most := uint64(100_000), uint64(4_000_000) // nanoseconds
	switch c.Door {
	case fault.ImageKit:
		least, most = 5_000_000, uint64(farthest)
	case fault.Queue:
		most = 2_000_000
	}
	return time.Duration(least + h%(most-least)), time.Duration(least + mixed(h)%(most-least))
}

// slowness is between a blink and longer than anybody waits.
func (w *world) slowness(c fault.Call) time.Duration {
	h := w.lot("slow " + c.Method + c.Key)
	return time.Duration(h % uint64(40*time.Second))
}

// lot draws a number for the n-th use of a name.
func (w *world) lot(name string) uint64 {
	w.mu.Lock()
	n := w.nth[name]
	w.nth[name]++
	w.mu.Unlock()
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return mixed(h.Sum64() ^ mixed(w.Seed+n*0x9e3779b97f4a7c15))
}

// mixed is the finalizer of splitmix64.
func mixed(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}
