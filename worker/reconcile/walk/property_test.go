package walk

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

var (
	seeds = flag.Int("walk.seeds", 600, "how many random listings")
	seed  = flag.Uint64("walk.seed", 1, "the first of them")
)

// random is a library of up to 300 files in lumps, for pages of 10.
func random(r *rand.Rand) *library {
	l := &library{size: 10}
	at := epoch
	for i := 0; i < r.IntN(300); {
		at = at.Add(time.Duration(r.Int64N(int64(30 * time.Minute))))
		lump := 1
		if r.IntN(4) == 0 {
			lump = 1 + r.IntN(60)
		}
		for range lump {
			l.files = append(l.files, made(i, at.Truncate(time.Millisecond)))
			at = at.Add(time.Duration(r.Int64N(int64(time.Second))) * time.Duration(r.IntN(2)))
			i++
		}
	}
	l.add()
	return l
}

func small(c *Config) { c.PageSize, c.MaxSkip = 10, 1000 }

// eachSeed runs f over many libraries and names the seed of each failure.
func eachSeed(t *testing.T, f func(t *testing.T, r *rand.Rand)) {
	for s := *seed; s < *seed+uint64(*seeds) && !t.Failed(); s++ {
		r := rand.New(rand.NewPCG(s, 0))
		f(t, r)
		if t.Failed() {
			t.Logf("seed %d: go test ./worker/reconcile/walk -run '^%s$' -walk.seed %d -walk.seeds 1", s, t.Name(), s)
		}
	}
}

// TestFaithfulProperty: whatever is uploaded or deleted meanwhile, what was there all
// along comes, nothing else than what was shown does, and it ends; without deletions, never
// broken.
func TestFaithfulProperty(t *testing.T) {
	eachSeed(t, func(t *testing.T, r *rand.Rand) {
		l := random(r)
		stays, changes, deletes := set(idsOf(l.files)), r.IntN(60), r.IntN(2) == 0
		number := 10_000
		l.before = func(l *library, n int, _ query) {
			for ; n > 0 && changes > 0 && r.IntN(3) > 0; changes-- {
				switch {
				case deletes && r.IntN(2) == 0 && len(l.files) > 0:
					i := r.IntN(len(l.files))
					delete(stays, l.files[i].ID)
					l.files = slices.Delete(l.files, i, i+1)
				default:
					number++
					at := epoch.Add(time.Duration(r.Int64N(int64(200 * time.Hour))))
					if len(l.files) > 0 && r.IntN(2) == 0 {
						at = l.files[r.IntN(len(l.files))].CreatedAt
					}
					l.add(made(number, at))
				}
			}
		}
		o := walked(t, l, 2000, small)
		o.checkShown(t, l)
		if o.broken == nil {
			for id := range stays {
				if !set(o.ids)[id] {
					t.Errorf("%s was there all along and did not come; notes %v", id, o.Notes())
				}
			}
		}
		// Files that appear before the cursor in every pass over a window may be doubted.
		if !deletes && (o.broken != nil || !o.Whole() && o.Notes()[noteDisplaced] == 0) {
			t.Errorf("broken %v, whole %v, notes %v", o.broken, o.Whole(), o.Notes())
		}
		for n := range o.Notes() {
			if !slices.Contains([]string{noteShrank, noteMoved, noteSame, noteShort, noteDisplaced}, n) {
				t.Errorf("noted %q", n)
			}
		}
	})
}

func (o outcome) checkShown(t testing.TB, l *library) {
	t.Helper()
	for _, id := range o.ids {
		if !l.shown[id] {
			t.Errorf("%s was never shown", id)
		}
	}
}

// spoils are the ways in which an answer can be wrong.
var spoils = []struct {
	name string
	// hides: it may leave files out where nobody can notice.
	hides bool
	spoil func(r *rand.Rand, l *library, q query, honest []file.Snapshot) (file.Answer, error)
}{
	{"cut", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		return rows(honest[:r.IntN(len(honest)+1)]...), nil
	}},
	{"shuffled", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		r.Shuffle(len(honest), func(i, j int) { honest[i], honest[j] = honest[j], honest[i] })
		return rows(honest...), nil
	}},
	{"of an older query", false, func(r *rand.Rand, l *library, _ query, _ []file.Snapshot) (file.Answer, error) {
		return rows(l.page(l.asked[r.IntN(len(l.asked))])...), nil
	}},
	{"with files twice", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		if len(honest) > 0 {
			i := r.IntN(len(honest))
			honest = slices.Insert(honest, i, honest[r.IntN(len(honest))])
		}
		return rows(honest...), nil
	}},
	{"with skip ignored", false, func(_ *rand.Rand, l *library, q query, _ []file.Snapshot) (file.Answer, error) {
		return rows(l.page(query{from: q.from})...), nil
	}},
	{"with from ignored", false, func(_ *rand.Rand, l *library, q query, _ []file.Snapshot) (file.Answer, error) {
		return rows(l.page(query{skip: q.skip})...), nil
	}},
	{"of a moment later", true, func(r *rand.Rand, l *library, q query, _ []file.Snapshot) (file.Answer, error) {
		return rows(l.page(query{q.from.Add(time.Duration(r.Int64N(int64(time.Hour)))), q.skip})...), nil
	}},
	{"with files left out", true, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		return rows(slices.DeleteFunc(honest, func(file.Snapshot) bool { return r.IntN(4) == 0 })...), nil
	}},
	{"with another createdAt", true, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		if len(honest) > 0 {
			honest[r.IntN(len(honest))].CreatedAt = epoch.Add(time.Duration(r.Int64N(int64(2*year))) - year)
		}
		return rows(honest...), nil
	}},
	{"unreadable", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		a := file.Answer{Rows: len(honest)}
		for _, f := range honest {
			if r.IntN(3) == 0 {
				a.Unreadable = append(a.Unreadable, f.ID)
			} else {
				a.Snapshots = append(a.Snapshots, f)
			}
		}
		return a, nil
	}},
	{"nameless", true, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		a := file.Answer{Rows: len(honest)}
		for _, f := range honest {
			if r.IntN(3) == 0 {
				a.Nameless++
			} else {
				a.Snapshots = append(a.Snapshots, f)
			}
		}
		return a, nil
	}},
	{"with folders", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		a := rows(honest...)
		a.Rows += r.IntN(5)
		return a, nil
	}},
	{"away", false, func(*rand.Rand, *library, query, []file.Snapshot) (file.Answer, error) {
		return file.Answer{}, &file.Fault{Kind: file.Unavailable}
	}},
	{"refused", false, func(r *rand.Rand, _ *library, _ query, honest []file.Snapshot) (file.Answer, error) {
		if r.IntN(10) > 0 {
			return rows(honest...), nil
		}
		return file.Answer{}, &file.Fault{Kind: file.Forbidden}
	}},
}

// TestHostileProperty: whatever the listing does, the walk ends, and gives out nothing
// that was not shown. Where at most every third answer is wrong, and none in a way that
// nobody can notice, what it calls whole is.
func TestHostileProperty(t *testing.T) {
	said := map[string]int{}
	eachSeed(t, func(t *testing.T, r *rand.Rand) {
		l := random(r)
		chosen, often := 1+r.IntN(3), r.IntN(4) == 0
		ways := r.Perm(len(spoils))[:chosen]
		hides := often
		for _, w := range ways {
			hides = hides || spoils[w].hides
		}
		last := false
		l.answer = func(_ int, q query, honest []file.Snapshot) (file.Answer, error) {
			wrong := r.IntN(4) == 0 && !last
			if often {
				wrong = r.IntN(10) > 0
			}
			if last = wrong; !wrong {
				return rows(honest...), nil
			}
			return spoils[ways[r.IntN(chosen)]].spoil(r, l, q, honest)
		}
		o := walked(t, l, 5000, small)
		o.checkShown(t, l)
		complete := len(set(o.ids)) == len(l.files)
		said[fmt.Sprintf("hides %v, broken %v, whole %v, complete %v", hides, o.broken != nil, o.Whole(), complete)]++
		if o.Whole() && !complete && !hides {
			t.Errorf("whole, with %d of %d files, notes %v", len(set(o.ids)), len(l.files), o.Notes())
			for _, w := range ways {
				t.Log(spoils[w].name)
			}
		}
		if o.Whole() && slices.ContainsFunc([]string{noteNameless, noteDisplaced, noteUnordered}, func(n string) bool { return o.Notes()[n] > 0 }) {
			t.Errorf("whole in spite of %v", o.Notes())
		}
	})
	for what, n := range said {
		t.Logf("%5d × %s", n, what)
	}
}
