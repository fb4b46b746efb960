package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault makes matching requests go wrong. Of the matching ones the oldest that
// fires is used.
type Fault struct {
	ID int `json:"id,omitempty"`
	// Method matches any when empty.
	Method string `json:"method,omitempty"`
	// Path matches any when empty; * stands for anything, slashes too. No query.
	Path string `json:"path,omitempty"`
	// FileID matches a segment of the path, or the id, in quotes, in a searchQuery.
	FileID string `json:"fileId,omitempty"`
	// Status replaces the answer; zero leaves it (200 where a body is given).
	Status int `json:"status,omitempty"`
	// Body is text, or JSON that is sent as it stands.
	Body    json.RawMessage   `json:"body,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Latency Duration          `json:"latency,omitempty"`
	// Close sends half of the answer and cuts the connection. Without Status or Body
	// the request is carried out first: it failed and it happened anyway.
	Close bool `json:"close,omitempty"`
	// After carries the request out before the answer is replaced.
	After bool `json:"after,omitempty"`
	// Probability of firing when it matches; zero is 1.
	Probability float64 `json:"probability,omitempty"`
	// Times it fires; zero is until it is deleted.
	Times int `json:"times,omitempty"`
	// Fired counts, across restarts.
	Fired int `json:"fired,omitempty"`
}

func (f *Fault) check() error {
	switch {
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d cannot be answered", f.Status)
	case !(f.Probability >= 0 && f.Probability <= 1):
		return fmt.Errorf("probability is between 0 and 1, not %v", f.Probability)
	case f.Times < 0 || f.ID != 0 || f.Fired != 0:
		return errors.New("times is zero or more; id and fired are not yours to set")
	case f.Status == 0 && f.Body == nil && f.Latency == 0 && !f.Close && len(f.Headers) == 0:
		return errors.New("a fault does something: status, body, headers, latency or close")
	}
	return nil
}

func (f *Fault) spent() bool { return f.Times > 0 && f.Fired >= f.Times }

func (f *Fault) matches(method, path, searchQuery string) bool {
	switch {
	case f.Method != "" && !strings.EqualFold(f.Method, method):
		return false
	case f.Path != "" && !matchStars(f.Path, path):
		return false
	case f.FileID == "":
		return true
	}
	return slices.Contains(strings.Split(path, "/"), f.FileID) || strings.Contains(searchQuery, `"`+f.FileID+`"`)
}

// matchStars matches a pattern whose * stands for any text, empty and slashes too.
func matchStars(pattern, s string) bool {
	head, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return pattern == s
	}
	s, found := strings.CutPrefix(s, head)
	if !found {
		return false
	}
	parts := strings.Split(rest, "*")
	last := parts[len(parts)-1]
	for _, p := range parts[:len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, last)
}

// The methods below are called on the fault that fired, or on nil for none.

func (f *Fault) number() int {
	if f == nil {
		return 0
	}
	return f.ID
}

func (f *Fault) closes() bool { return f != nil && f.Close }

// replaces: the answer is the fault's, not the handler's.
func (f *Fault) replaces() bool { return f != nil && (f.Status != 0 || f.Body != nil) }

func (f *Fault) wait(ctx context.Context) {
	if f == nil || f.Latency == 0 {
		return
	}
	t := time.NewTimer(time.Duration(f.Latency))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (f *Fault) answer() answer {
	a := answer{status: f.Status, header: http.Header{}}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	var text string
	switch {
	case f.Body == nil:
		a.body = map[string]any{"message": "A fault was asked for.", "help": help}
	case json.Unmarshal(f.Body, &text) == nil:
		a.raw = []byte(text)
	default:
		a.raw = f.Body
		a.header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for k, v := range f.Headers {
		a.header.Set(k, v)
	}
	return a
}

// fire finds the fault for a request and counts it.
func (e *Emulator) fire(r *http.Request) *Fault {
	return e.fireOn(r.Method, r.URL.Path, r.URL.Query().Get("searchQuery"))
}

func (e *Emulator) fireOn(method, path, searchQuery string) *Fault {
	e.mu.RLock()
	none := len(e.lib.faults) == 0
	e.mu.RUnlock()
	if none {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.lib.faults {
		if f.spent() || !f.matches(method, path, searchQuery) || !e.dice.falls(f.Probability) {
			continue
		}
		fired := *f
		fired.Fired++
		if _, err := e.commit([]change{{Fault: &fired}}); err != nil {
			e.Logger.Error("emulator: fault's count not stored", "error", err)
		}
		e.stats.faults.Add(1)
		return &fired
	}
	return nil
}

// putFault adds a fault, or replaces it when it has fired.
func (l *library) putFault(f *Fault) {
	l.lastFault = max(l.lastFault, f.ID)
	if i := slices.IndexFunc(l.faults, func(g *Fault) bool { return g.ID == f.ID }); i >= 0 {
		l.faults[i] = f
		return
	}
	l.faults = append(l.faults, f)
}

// addFaults is POST /_emulator/faults: one fault, or an array of them.
func (e *Emulator) addFaults(r *http.Request) answer {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return refuse(400, err.Error())
	}
	list := []*Fault{{}}
	into := any(list[0])
	if many := bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")); many {
		into = &list
		list = nil
	}
	if err := decodeStrict(bytes.NewReader(b), into); err != nil {
		return refuse(400, err.Error())
	}
	for _, f := range list {
		if f == nil {
			return refuse(400, "a fault is a JSON object")
		}
		if err := f.check(); err != nil {
			return refuse(400, err.Error())
		}
	}
	return e.change(func() (changes []change, a answer) {
		for i, f := range list {
			f.ID = e.lib.lastFault + 1 + i
			changes = append(changes, change{Fault: f})
		}
		if len(list) == 1 && into == any(list[0]) {
			return changes, ok(list[0])
		}
		return changes, ok(list)
	})
}

func (e *Emulator) dropFaults(r *http.Request) answer {
	n := -1
	if text := strings.TrimPrefix(r.URL.Path, "/_emulator/faults/"); text != r.URL.Path {
		id, err := strconv.Atoi(text)
		if err != nil || id < 1 {
			return refuse(404, "There is no such fault.")
		}
		n = id
	}
	return e.change(func() ([]change, answer) {
		return []change{{DropFault: n}}, answer{status: http.StatusNoContent}
	})
}

func (e *Emulator) showFaults(*http.Request) answer {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return ok(append([]*Fault{}, e.lib.faults...))
}

// dice are the only chance in faults and webhooks, so that a seed repeats a run.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64) *dice {
	d := &dice{}
	d.seed(seed)
	return d
}

func (d *dice) seed(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rng = rand.New(rand.NewPCG(seed, 0))
}

// falls is true with probability p; zero counts as 1.
func (d *dice) falls(p float64) bool { return p == 0 || p == 1 || d.roll() < p }

// happens is true with probability p.
func (d *dice) happens(p float64) bool { return p > 0 && d.roll() < p }

func (d *dice) roll() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64()
}
