package rows_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/check/collect"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/rows"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// TestAlike walks PostgreSQL and memory through the same random calls and acts, and
// compares what each call says and what is held in the end.
//
//	go test ./internal/simulate/rows -run TestAlike -walk.seed 7 -walk.n 1 -walk.steps 200
func TestAlike(t *testing.T) {
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	first, n, steps := *walkSeed, *walkN, *walkSteps
	for seed := first; seed < first+uint64(n); seed++ {
		w := newWalk(t, url, seed)
		w.walk(steps)
		if t.Failed() {
			t.Fatalf("seed %d of %d steps; repeat it: go test ./internal/simulate/rows -run TestAlike -walk.seed %d -walk.n 1 -walk.steps %d", seed, steps, seed, steps)
		}
	}
}

var (
	walkSeed  = flag.Uint64("walk.seed", 1, "first seed of TestAlike")
	walkN     = flag.Int("walk.n", 4, "how many seeds TestAlike walks")
	walkSteps = flag.Int("walk.steps", 60, "how many calls and acts each seed makes")
)

// side is one of the two.
type side struct {
	service.Rows
	turn int64
	sql  func(sql string, args ...any)
	acts *rows.Database
	said string
}

type walk struct {
	*testing.T
	*rand.Rand
	seed     uint64
	url      string
	real     *side
	mem      *side
	confirm  time.Duration
	names    map[string]string // of ids that each side draws for itself
	events   []event.Pending
	fences   [][2]file.Fence
	runs     [][2]string
	jobs     [][2]string
	taken    [][2]event.Event // of runs and jobs, to be settled
	step     int
	accepted int
}

func newWalk(t *testing.T, url string, seed uint64) *walk {
	w := &walk{T: t, Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed, url: url, names: map[string]string{}, confirm: []time.Duration{time.Microsecond, time.Hour}[seed%2]}
	c := store.Config{URL: url, AbsentConfirm: w.confirm, Ownership: []store.Ownership{store.ByClaim, store.ByClaim, store.BySigned}[seed%3],
		Secrets: [][]byte{[]byte("canary_secret")}}
	st, err := store.Open(t.Context(), c)
	w.must(err)
	conn, err := pgx.Connect(t.Context(), url)
	w.must(err)
	t.Cleanup(func() { st.Close(); _ = conn.Close(context.WithoutCancel(t.Context())) })
	w.real = &side{Rows: service.RowsOf(st), sql: func(sql string, args ...any) {
		_, err := conn.Exec(t.Context(), sql, args...)
		w.must(err)
	}}
	for _, table := range []string{"public.imagekit_files", "trueup.file_state", "trueup.ledger", "trueup.retries", "trueup.dead_letters", "trueup.trial_marks",
		"trueup.audit", "trueup.fuse_hours", "trueup.findings", "trueup.runs", "trueup.job_items", "trueup.jobs", "trueup.expired_counts",
		"trueup.leases", "trueup.fuse", "trueup.poll"} {
		w.real.sql(`DELETE FROM ` + table)
	}
	w.real.sql(`INSERT INTO trueup.leases (name) VALUES ('worker')`)
	w.real.sql(`INSERT INTO trueup.fuse DEFAULT VALUES`)
	w.real.sql(`INSERT INTO trueup.poll DEFAULT VALUES`)
	w.real.sql(`ALTER SEQUENCE trueup.fence RESTART`)
	db := rows.New(chance.Seeded(seed))
	w.mem = &side{Rows: rows.Open(db, rows.Config{Config: c}), acts: db}
	w.begin()
	return w
}

func (w *walk) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("seed %d, step %d: %v", w.seed, w.step, err)
	}
}

// both does one call on each side and compares what they say.
func (w *walk) both(what string, call func(s *side, i int) (any, error)) {
	w.Helper()
	for i, s := range []*side{w.real, w.mem} {
		got, err := call(s, i)
		s.said = w.plain(got) + " " + kind(err)
	}
	if w.real.said != w.mem.said {
		w.Errorf("seed %d, step %d: %s:\nreal   %s\nmemory %s", w.seed, w.step, what, w.real.said, w.mem.said)
	}
}

// kind is what a caller can tell an error by.
func kind(err error) string {
	for _, known := range []error{event.ErrTurnMoved, event.ErrPaused, event.ErrUnstorable, event.ErrUnknown, run.ErrUnderWay, run.ErrEnded, run.ErrOtherCount, run.ErrAccount,
		store.ErrKeyReused, store.ErrUnknownFile, event.ErrOutage} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if err != nil {
		return "other error: " + err.Error()
	}
	return "ok"
}

var (
	ulids   = regexp.MustCompile(`01[0-9A-HJKMNP-TV-Z]{24}`)
	moments = regexp.MustCompile(`"20(2[6-9]|[3-9][0-9])-(0[4-9]|1[0-2])-[^"]*"|20(2[6-9]|[3-9][0-9])-(0[4-9]|1[0-2])-[0-9]{2}T[0-9:.]+Z?`)
)

// plain is a value as text without what each side chooses for itself: ids, moments of
// now, hashes.
func (w *walk) plain(v any) string {
	b, err := json.Marshal(v)
	w.must(err)
	var tree any
	w.must(json.Unmarshal(b, &tree))
	b, err = json.Marshal(prune(tree))
	w.must(err)
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("[]"), []byte("null")), []byte("{}"), []byte("null"))
	s := ulids.ReplaceAllStringFunc(string(b), func(id string) string {
		switch name, ok := w.names[id]; {
		case ok:
			return name
		case strings.HasPrefix(id, "01K000000"):
			return id
		}
		return "ID"
	})
	return moments.ReplaceAllString(s, "NOW")
}

// prune drops what is not to be compared, and sorts lists that have no order of their own.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			switch k {
			case "Hash", "Xmin", "At", "MaskedAt", "SuspectFor", "xmin", "id", "at":
				delete(v, k)
			default:
				v[k] = prune(e)
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func (w *walk) pick(from ...string) string { return from[w.IntN(len(from))] }

func (w *walk) fileID() string { return w.pick("f1", "f2", "f3", "f4", "f5", "f6") }

func (w *walk) user() string { return w.pick("ann", "bob", "eve") }

func (w *walk) base() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func (w *walk) snapshot(id string) *file.Snapshot {
	name, size := w.pick("a.jpg", "b.jpg"), int64(w.IntN(2)+1)
	s := &file.Snapshot{ID: id, URL: "https://ik.example/" + id, Name: &name, SizeBytes: &size, FirstVersion: w.IntN(3) > 0, CreatedAt: w.base(),
		UpdatedAt: w.base().Add(time.Duration(w.IntN(4)) * time.Minute)}
	if w.IntN(2) == 0 {
		s.Tags = []string{"x y", "ü"}
	}
	if w.IntN(40) == 0 {
		bad := "a\x00"
		s.Name = &bad
	}
	return s
}

// observe is the same observation for both sides, each with its own fence.
func (w *walk) observe(id string) [2]file.Observation {
	if len(w.fences) == 0 || w.IntN(4) > 0 {
		w.fence(id)
	}
	fences := w.fences[len(w.fences)-1]
	if w.IntN(8) == 0 {
		fences = w.fences[w.IntN(len(w.fences))]
	}
	o := file.Observation{FileID: id, How: file.LookUp, Status: 200, RequestID: "req"}
	switch n := w.IntN(10); {
	case n < 3:
		o.Status = 404
		o.Canary = file.Canary{EmptyLibrary: w.IntN(2) == 0, FileIDs: []string{w.fileID(), w.fileID()}}
	case n < 6:
		o.How = file.Hit
		fallthrough
	default:
		o.Snapshot = w.snapshot(id)
		if w.IntN(4) == 0 {
			o.Proof = file.Proof{User: w.user(), Ticket: w.pick("t1", "t2")}
		} else if w.IntN(12) == 0 {
			o.Proof = file.Proof{Conflict: true}
		}
	}
	a, b := o, o
	a.Fence, b.Fence = fences[0], fences[1]
	return [2]file.Observation{a, b}
}

func (w *walk) fence(ids ...string) {
	var drawn [2]file.Fence
	w.both("fence", func(s *side, i int) (any, error) {
		f, known, err := s.Fence(w.Context(), ids)
		drawn[i] = f
		return []any{f.Number, known}, err
	})
	w.fences = append(w.fences, drawn)
}

func (w *walk) newEvent() event.Pending {
	w.accepted++
	p := event.Pending{Event: event.Event{ID: fmt.Sprintf("01K%023d", w.accepted), FileID: w.fileID(), AcceptedAt: w.base().Add(time.Duration(w.IntN(80)-8) * time.Minute),
		Body: []byte(`{"a":"canary_secret"}`)}}
	switch w.IntN(6) {
	case 0:
		p.Source, p.Kind = event.Webhook, event.KindDeleted
	case 1:
		p.Source, p.Kind, p.UpdatedAt, p.WebhookID = event.Webhook, "file.updated", w.base().Add(time.Duration(w.IntN(4))*time.Minute), "w"
	case 2:
		p.Source, p.Kind = event.Reconcile, event.KindRecheck
	default:
		p.Source, p.Kind, p.User = event.Client, event.KindReport, w.user()
	}
	p.Origin = p.Source
	w.events = append(w.events, p)
	return p
}

// end decides by the event and what it was told, and by nothing else.
func (w *walk) end(name string, p event.Pending, r file.Result) event.End {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, w.seed, name, p.Tries, r.Outcome, r.Reason)
	n := h.Sum32() % 20
	attempt := &event.Attempt{At: w.base(), Class: event.ClassImageKit, Reason: "x", Excerpt: "canary_secret", Version: "v"}
	switch {
	case n < 3:
		return event.End{Kind: event.Dead, Reason: w.dead(n), Class: event.ClassImageKit, Note: "canary_secret", Attempt: attempt}
	case n < 4:
		return event.End{Kind: event.Superseded, Reason: "newer"}
	case r.Outcome == "" || r.Outcome == file.LookAgain || r.Wait > 0 || n < 6:
		return event.End{Kind: event.Retry, Reason: string(r.Reason), After: []time.Duration{0, time.Hour}[h.Sum32()/20%2], Attempt: attempt}
	case r.Claim == file.ClaimRefused:
		return event.End{Kind: event.Rejected, Reason: "claim_refused"}
	}
	return event.End{Kind: event.Done, Reason: string(r.Reason)}
}

func (w *walk) dead(n uint32) string { return []string{"gave_up", "poison", "refused"}[n] }

// settle settles the same on both sides: pending in pairs, because some ids are drawn.
func (w *walk) settle(pending [][2]event.Pending) {
	var seen [2][]file.Observation
	for _, id := range []string{"f1", "f2", "f3", "f4", "f5", "f6"} {
		if slices.ContainsFunc(pending, func(p [2]event.Pending) bool { return p[0].FileID == id }) && w.IntN(5) > 0 || w.IntN(20) == 0 {
			for range 1 + w.IntN(8)/7 {
				o := w.observe(id)
				seen[0], seen[1] = append(seen[0], o[0]), append(seen[1], o[1])
			}
		}
	}
	preview := w.IntN(4) == 0
	for _, keep := range []bool{false, true} {
		if !keep && !preview {
			continue
		}
		w.both(fmt.Sprintf("settle (kept: %v) %s with %s", keep, w.plain(pending), w.plain(seen[1])), func(s *side, i int) (any, error) {
			mine := make([]event.Pending, len(pending))
			for j := range pending {
				mine[j] = pending[j][i]
			}
			told := map[string]string{}
			end := func(p event.Pending, r file.Result) event.End {
				r.Wait = r.Wait.Truncate(time.Hour)
				told[w.named(p.ID)] = fmt.Sprintf("%+v", r)
				return w.end(w.named(p.ID), p, r)
			}
			if !keep {
				would, err := s.Preview(w.Context(), mine, seen[i], end)
				ends := map[string]string{}
				for id, p := range would {
					p.Result.Wait = p.Result.Wait.Truncate(time.Hour)
					p.End.Note, _, _ = strings.Cut(p.End.Note, ":")
					ends[w.named(id)] = fmt.Sprintf("%s %+v %s/%s", p.Verdict, p.Result, p.End.Kind, p.End.Reason)
				}
				return ends, err
			}
			out, err := s.Settle(w.Context(), s.turn, mine, seen[i], end)
			ends := map[string]string{}
			for id, e := range out.Ends {
				ends[w.named(id)] = string(e.Kind) + "/" + e.Reason
			}
			if err != nil {
				clear(told)
			}
			return []any{ends, out.Already, out.Security, out.NextDue.IsZero(), told}, err
		})
	}
}

// named is what an id is called on both sides.
func (w *walk) named(id string) string {
	if name, ok := w.names[id]; ok {
		return name
	}
	return id
}

// drawn gives an id that each side has drawn for itself one name.
func (w *walk) drawn(ids [2]string) {
	if w.names[ids[0]] == "" && ids[0] != "" {
		name := fmt.Sprintf("drawn-%d", len(w.names)/2)
		w.names[ids[0]], w.names[ids[1]] = name, name
	}
}

func (w *walk) begin() {
	w.both("begin turn", func(s *side, _ int) (any, error) {
		t, err := s.BeginTurn(w.Context())
		s.turn = t.Number
		return []any{t.Number, t.NextDue.IsZero(), t.Paused}, err
	})
}

// walk makes that many random steps.
func (w *walk) walk(steps int) {
	acts := w.acts()
	names := slices.Sorted(maps.Keys(acts))
	for w.step = range steps {
		if w.IntN(2) == 0 {
			w.settleNew()
		} else {
			acts[names[w.IntN(len(names))]]()
		}
		if w.Failed() {
			return
		}
		if w.step%10 == 9 || w.step == steps-1 {
			w.compare()
		}
	}
}

func (w *walk) settleNew() {
	var pending [][2]event.Pending
	for range 1 + w.IntN(4) {
		p := w.newEvent()
		if w.IntN(6) == 0 {
			p = w.events[w.IntN(len(w.events))]
			p.Retried = w.IntN(2) == 0
		}
		pending = append(pending, [2]event.Pending{p, p})
	}
	for len(w.taken) > 0 && w.IntN(2) == 0 {
		e := w.taken[0]
		w.taken = w.taken[1:]
		pending = append(pending, [2]event.Pending{{Event: e[0]}, {Event: e[1]}})
	}
	w.settle(pending)
}

// due settles what waits.
func (w *walk) due() {
	var all [2][]event.Pending
	w.both("due", func(s *side, i int) (any, error) {
		out, next, err := s.Due(w.Context(), 1000)
		slices.SortFunc(out, func(a, b event.Pending) int { return strings.Compare(w.named(a.ID), w.named(b.ID)) })
		all[i] = out
		return []any{out, next.IsZero()}, err
	})
	var pending [][2]event.Pending
	for i := range min(len(all[0]), len(all[1]), 1+w.IntN(6)) {
		pending = append(pending, [2]event.Pending{all[0][i], all[1][i]})
	}
	if len(pending) > 0 {
		w.settle(pending)
	}
}

// compare compares what is held.
func (w *walk) compare() {
	real, err := collect.Database(w.Context(), w.url)
	w.must(err)
	mem := w.mem.acts.Dump()
	for i := range real.Rows {
		real.Rows[i].ID = 0
	}
	for i := range mem.Rows {
		mem.Rows[i].ID = 0
	}
	for _, table := range []struct {
		name      string
		real, mem any
	}{{"rows", real.Rows, mem.Rows}, {"file_state", real.States, mem.States}, {"ledger", real.Ledger, mem.Ledger}, {"retries", real.Retries, mem.Retries},
		{"dead letters", real.DeadLetters, mem.DeadLetters}, {"runs", real.Runs, mem.Runs}, {"findings", real.Findings, mem.Findings},
		{"audit", real.Audit, mem.Audit}, {"fuse", real.Fuse, mem.Fuse}, {"expired", real.Expired, mem.Expired}} {
		a, b := w.lines(table.real), w.lines(table.mem)
		for i := range max(len(a), len(b)) {
			if i >= len(a) || i >= len(b) || a[i] != b[i] {
				w.Errorf("seed %d, after step %d: %s: %d lines and %d, the first to differ:\nreal   %s\nmemory %s", w.seed, w.step, table.name, len(a), len(b), at(a, i), at(b, i))
				break
			}
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(none)"
}

// lines are a table's, sorted as text.
func (w *walk) lines(table any) []string {
	b, err := json.Marshal(table)
	w.must(err)
	var all []json.RawMessage
	if json.Unmarshal(b, &all) != nil {
		return []string{w.plain(table)}
	}
	out := make([]string, len(all))
	for i, l := range all {
		out[i] = w.plain(l)
	}
	slices.Sort(out)
	return out
}
