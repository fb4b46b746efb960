package campaign

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"
)

// plan is every event of a run, by formula: which files are named, by whom, how, in
// which order. It keeps no events, so that a million of them cost no memory, and one
// seed is one plan.
//
// Events are numbered from 0. The first `distinct` of them are distinct; each of the
// others is one of these once more. The order of sending is a permutation of all.
type plan struct {
	seed                uint64
	n, distinct         int
	files               int
	users               int
	poison, crash, junk []int // the distinct events that are poison, each list in order
}

// What share of a run is what.
const (
	duplicateShare = 0.30
	poisonShare    = 0.01
	webhookShare   = 0.25
	contestedShare = 0.03 // of the files: two users report them
	eventsPerFile  = 5
)

func newPlan(seed uint64, n int) *plan {
	p := &plan{seed: seed, n: n, distinct: n - int(duplicateShare*float64(n)), files: max(n/eventsPerFile, 1), users: 20}
	p.choosePoison()
	return p
}

// choosePoison takes its share of the events beyond the first of each file, so that
// every file is named by a healthy event, too. Most of it panics. A bounded number ends
// the process, because each of those costs two restarts, and one in twenty is no
// envelope at all.
func (p *plan) choosePoison() {
	share := poisonShare / (1 - float64(p.files)/float64(p.distinct))
	for b := p.files; b < p.distinct; b++ {
		if p.chance(b, "poison") < share {
			p.poison = append(p.poison, b)
		}
	}
	crash := min(max(len(p.poison)/700, 1), 10)
	for i, b := range p.poison {
		switch {
		case len(p.crash) < crash && i*crash/len(p.poison) == len(p.crash):
			p.crash = append(p.crash, b)
		case len(p.junk) == 0 || p.chance(b, "junk") < 0.05:
			p.junk = append(p.junk, b)
		}
	}
}

// door is the way an event takes in.
type door int

const (
	byReport door = iota
	byWebhook
	byStream // bytes that are no envelope, put there past ingest
)

// hint is one event as it will be sent.
type hint struct {
	number int // of the distinct event: all its copies are byte for byte the same
	file   int
	door   door
	user   int    // who reports
	kind   string // a webhook's
	plant  string // what a planted worker does over it; empty: nothing
}

// at is the event that is sent as the i-th.
func (p *plan) at(i int) int { return permuted(p.seed, p.n, i) }

// distinctOf is the number of the distinct event that event k is, or repeats.
func (p *plan) distinctOf(k int) int {
	if k < p.distinct {
		return k
	}
	for try := 0; ; try++ {
		b := int(p.draw(k, fmt.Sprint("repeats", try)) % uint64(p.distinct))
		if !contains(p.crash, b) {
			return b
		}
	}
}

// event describes the distinct event b.
func (p *plan) event(b int) hint {
	h := hint{number: b, file: b % p.files, plant: p.plantOf(b)}
	h.user = h.file % p.users
	if p.contested(h.file) && p.chance(b, "user") < 0.5 {
		h.user = (h.user + 1) % p.users
	}
	switch {
	case h.plant == "junk":
		h.door = byStream
	case b < p.files && p.historyOf(b) == erased: // of a file that is gone ImageKit said so
		h.door, h.kind = byWebhook, "file.deleted"
	case p.chance(b, "door") < webhookShare:
		h.door = byWebhook
		h.kind = []string{"file.created", "file.updated", "file.updated", "file-version.created", "asset.renamed"}[p.draw(b, "kind")%5]
	}
	return h
}

func (p *plan) plantOf(b int) string {
	switch {
	case !contains(p.poison, b):
		return ""
	case contains(p.junk, b):
		return "junk"
	}
	if i, found := slices.BinarySearch(p.crash, b); found {
		return []string{"spin", "hang", "eat"}[i%3]
	}
	return "panic"
}

func contains(sorted []int, v int) bool {
	_, found := slices.BinarySearch(sorted, v)
	return found
}

// contested files are reported by two users: the earlier report owns.
func (p *plan) contested(file int) bool { return p.chance(file, "contested") < contestedShare }

// history is what befell a file before the first event was sent.
type history int

const (
	untouched history = iota
	erased
	retagged
	renamed
	overwritten
)

func (p *plan) historyOf(file int) history {
	switch c := p.chance(file, "history"); {
	case c < 0.02:
		return erased
	case c < 0.04:
		return retagged
	case c < 0.05:
		return renamed
	case c < 0.06:
		return overwritten
	}
	return untouched
}

// draw is 64 bits that follow from seed, number and purpose alone.
func (p *plan) draw(n int, purpose string) uint64 {
	h := mix(p.seed ^ 0x9e3779b97f4a7c15)
	for _, c := range []byte(purpose) {
		h = mix(h ^ uint64(c))
	}
	return mix(h ^ uint64(n))
}

// chance is draw as a number from 0 up to 1.
func (p *plan) chance(n int, purpose string) float64 {
	return float64(p.draw(n, purpose)>>11) / (1 << 53)
}

// mix is splitmix64's finalizer.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// permuted is the i-th of a permutation of 0…n-1: a Feistel network over the next even
// power of two, walked until it lands inside.
func permuted(seed uint64, n, i int) int {
	half := (bits.Len(uint(max(n-1, 1))) + 1) / 2
	mask := uint64(1)<<half - 1
	v := uint64(i)
	for {
		l, r := v>>half, v&mask
		for round := range uint64(6) {
			l, r = r, l^(mix(mix(seed^round<<56)^r)&mask)
		}
		if v = l<<half | r; v < uint64(n) {
			return int(v)
		}
	}
}

// TestMillionPlan: the order is a permutation that mixes the whole run, the shares are
// what they are said to be, and the same seed plans the same.
func TestMillionPlan(t *testing.T) {
	t.Parallel()
	const n = 50_000
	p := newPlan(7, n)
	seen, moved, repeats, poison, webhooks := make([]bool, n), 0, 0, 0, 0
	for i := range n {
		k := p.at(i)
		if seen[k] {
			t.Fatalf("event %d is sent twice", k)
		}
		seen[k] = true
		if k-i > n/10 || i-k > n/10 {
			moved++
		}
		if k >= p.distinct {
			repeats++
		}
		h := p.event(p.distinctOf(k))
		if h.plant != "" {
			poison++
		}
		if h.door == byWebhook {
			webhooks++
		}
		if k < p.files && (h.plant != "" || h.file != k) {
			t.Fatalf("the first event of file %d is %+v", k, h)
		}
	}
	within := func(what string, have, want int) {
		t.Helper()
		if have < want*9/10 || have > want*11/10 {
			t.Errorf("%d %s, want about %d", have, what, want)
		}
	}
	within("events far from where they were", moved, n*8/10)
	within("repeats", repeats, n*3/10)
	within("poisonous events", poison, n/100)
	within("webhooks", webhooks, n/4)
	other := newPlan(7, n)
	if !slices.Equal(p.poison, other.poison) || p.at(17) != other.at(17) || p.event(4321) != other.event(4321) {
		t.Error("the same seed plans something else")
	}
	if newPlan(8, n).at(17) == p.at(17) && newPlan(8, n).at(18) == p.at(18) {
		t.Error("another seed plans the same order")
	}
}
