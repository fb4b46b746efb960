package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/testenv"
)

// TestMillion sends -n events through real processes: 30 % are repeats, all of them are
// shuffled, 1 % is poison, a fifth of ImageKit's answers is wrong, the library changes
// meanwhile, and ten seconds rarely pass without a kill -9. In the end the table is the
// library in every column, every file belongs to the earliest of those who reported it,
// the dead letters are the poison and nothing else; with the poison cured a replay of
// all of them settles them, and a second one changes no row.
//
//	go test ./internal/campaign -run 'TestMillion$' -timeout 0 -v -args -n 1000000
func TestMillion(t *testing.T) {
	t.Parallel() // where there are few events it mostly waits
	n := rounds(1500)
	m := &million{t: t, plan: newPlan(*seedFlag, n), begun: time.Now(), counts: map[string]int64{}, cells: map[string]int64{}}
	t.Logf("seed %d: %d events, %d of them distinct, %d poison (%d end the process, %d are no envelope), %d files",
		m.plan.seed, n, m.plan.distinct, len(m.plan.poison), len(m.plan.crash), len(m.plan.junk), m.plan.files)
	defer m.record()
	for _, phase := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"start", m.start}, {"send", m.send}, {"settle", m.settle}, {"judge", m.judgeAll},
		{"cure", m.cure}, {"replay", m.replay}, {"judge", m.judgeReplayed}, {"replay again", m.replayAgain},
	} {
		begun := time.Now()
		if err := phase.do(t.Context()); err != nil {
			m.wrong = append(m.wrong, fmt.Sprintf("%s: %v", phase.name, err))
			return
		}
		m.counts["ms_"+strings.ReplaceAll(phase.name, " ", "_")] = time.Since(begun).Milliseconds()
		t.Logf("%s: %s", phase.name, time.Since(begun).Round(time.Millisecond))
	}
}

// million is one run.
type million struct {
	t     *testing.T
	plan  *plan
	begun time.Time

	rig     *rig
	shelf   *shelf
	files   *catalogue
	senders *senders
	killer  *killer
	actor   *actor
	faults  map[int]string // cells by the number of the fault

	counts, cells map[string]int64
	wrong         []string
}

// millionEnv: the table must converge by the events alone, so nobody looks for what they
// missed.
func millionEnv() map[string]string {
	return map[string]string{
		"TRUEUP_RECONCILE_EVERY": "0", "TRUEUP_POLL_EVERY": "0", "TRUEUP_CLAIM_WINDOW": "24h", "TRUEUP_API_RATE_MAX": "100000",
		"TRUEUP_API_TIMEOUT": "500ms", "TRUEUP_API_PATIENCE": "2s", "TRUEUP_STEP_LIMIT": "2s", "TRUEUP_MEMORY_LIMIT": "1GiB", "TRUEUP_LOG_LEVEL": "warn",
	}
}

func (m *million) start(ctx context.Context) (err error) {
	// A webhook is not given up while ingest is away now and then.
	retries := []string{"300ms", "700ms"}
	for range 60 {
		retries = append(retries, "2s")
	}
	m.rig = start(m.t, Options{Env: millionEnv(), Tags: []string{"planted"}, Settings: map[string]any{
		"seed": m.plan.seed, "rateLimit": map[string]any{"perSecond": 1_000_000, "burst": 1_000_000}, "webhooks": map[string]any{"enabled": false, "retrySchedule": retries},
	}})
	m.shelf = newShelf(m.rig.direct, m.rig.keys.private)
	m.t.Cleanup(m.shelf.close)
	if m.files, err = m.plan.makeLibrary(ctx, m.shelf); err != nil {
		return err
	}
	if err := m.rig.Settings(map[string]any{"webhooks": map[string]any{"enabled": true}}); err != nil {
		return err
	}
	if m.faults, err = m.rig.ail(); err != nil {
		return err
	}
	senders, end, err := newSenders(m.plan, m.files, m.rig)
	if err != nil {
		return err
	}
	m.t.Cleanup(end)
	m.senders = senders
	return m.hire(ctx)
}

// hire makes those who kill and change.
func (m *million) hire(ctx context.Context) error {
	turns, err := m.senders.stream.KeyValue(ctx, streamPrefix+"_turn")
	if err != nil {
		return err
	}
	m.killer = &killer{r: m.rig, rng: rand.New(rand.NewPCG(m.plan.seed, 3)), every: 8 * time.Second, turns: turns, cells: m.cells}
	m.actor = &actor{plan: m.plan, files: m.files, shelf: m.shelf, rng: rand.New(rand.NewPCG(m.plan.seed, 4)), every: 100 * time.Millisecond, mature: func() bool { return m.senders.told.count() > int64(m.plan.n/5) }, moved: map[int]history{}, cells: map[string]int64{}}
	if m.small() {
		m.killer.every = 1500 * time.Millisecond
	}
	return nil
}

// send sends everything under faults. Those go on until the stream is nearly empty; in
// a small run kills end before that, or it would see little else.
func (m *million) send(ctx context.Context) error {
	disturbing, stop := context.WithCancel(ctx)
	killing, spare := context.WithCancel(disturbing)
	defer stop()
	defer spare()
	pace := newPacer(m.senders.stream)
	if m.small() {
		pace.rate = float64(m.plan.n) / 7
		defer time.AfterFunc(5*time.Second, spare).Stop()
	}
	var disturbers errgroup.Group
	disturbers.Go(func() error { return m.killer.run(killing) })
	disturbers.Go(func() error { return m.actor.run(disturbing) })
	disturbers.Go(func() error { return pace.run(disturbing) })
	disturbers.Go(func() error { return m.tell(disturbing) })
	begun := time.Now()
	err := m.senders.sendAll(ctx, pace.pass)
	m.counts["ms_sending"] = time.Since(begun).Milliseconds()
	if err == nil {
		err = until(ctx, func() error {
			now, err := pace.stream(ctx)
			if err == nil && now.Msgs > 100 { // the last ones come again and again under kills
				err = fmt.Errorf("%d envelopes wait", now.Msgs)
			}
			return err
		})
	}
	m.counts["ms_disturbed"] = time.Since(begun).Milliseconds()
	stop()
	return errors.Join(err, disturbers.Wait())
}

// small runs are those that CI has time for.
func (m *million) small() bool { return m.plan.n < 20_000 }

// tell says now and then how far it has come.
func (m *million) tell(ctx context.Context) error {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var settled, retries, dead int64
		_ = m.rig.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM trueup.ledger WHERE end_kind <> ''),
			(SELECT count(*) FROM trueup.retries), (SELECT count(*) FROM trueup.dead_letters)`).Scan(&settled, &retries, &dead)
		m.t.Logf("%s: %d acknowledged, %d settled, %d wait, %d dead letters", time.Since(m.begun).Round(time.Second), m.senders.told.count(), settled, retries, dead)
	}
}

// settle heals all parts, not ImageKit, and waits until nothing is under way. The bound
// only ends a run that is stuck.
func (m *million) settle(ctx context.Context) error {
	fired, err := m.rig.Fired()
	if err != nil {
		return err
	}
	for id, n := range fired {
		m.cells[m.faults[id]] += int64(n)
	}
	for _, id := range m.killer.bursts {
		m.cells["imagekit/429-burst"] += int64(fired[id])
	}
	delete(m.cells, "")
	if err := m.rig.Heal(2 * time.Minute); err != nil {
		return err
	}
	begun := time.Now()
	const bound = 10 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if err := until(ctx, func() error { return m.rig.Quiet(ctx) }); err != nil {
		return m.rig.stuck(bound, err)
	}
	m.counts["ms_to_settle_after_healing"] = time.Since(begun).Milliseconds()
	return nil
}

func (m *million) judges() *judge {
	return &judge{plan: m.plan, files: m.files, told: &m.senders.told, moved: m.actor.moved, shelf: m.shelf, rig: m.rig, begun: m.begun, counts: map[string]int64{}}
}

func (m *million) judgeAll(ctx context.Context) error {
	j := m.judges()
	err := j.judge(ctx, judgement{"the whole", j.checker}, judgement{"reports", j.reports}, judgement{"webhooks", j.webhooks},
		judgement{"dead letters", j.deadLetters("dead")}, judgement{"owners", j.owners}, judgement{"sums", j.sums})
	maps.Copy(m.counts, j.counts)
	m.wrong = append(m.wrong, j.wrong...)
	return errors.Join(err, m.rig.Fell())
}

// cure puts workers in place that know nothing of the plants: the fix is deployed.
func (m *million) cure(ctx context.Context) error {
	for name, u := range m.rig.units {
		if p, ok := u.(*program); ok && strings.HasPrefix(name, "worker") {
			p.stop(10 * time.Second)
			p.path = testenv.Trueup(m.t)
		}
	}
	return m.rig.Heal(time.Minute)
}

// replayAll sends dead letters through again by the operator API and waits for all.
func (m *million) replayAll(ctx context.Context, filter map[string]any) error {
	var curable int64
	if err := m.rig.db.QueryRow(ctx, `SELECT count(*) FROM trueup.dead_letters WHERE file_id <> ''`).Scan(&curable); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var job struct {
		ID string `json:"id"`
	}
	a, err := m.rig.Ops(ctx, 0, http.MethodPost, "/api/dead/replay", filter)
	if err == nil && a.status/100 != 2 {
		err = fmt.Errorf("%d %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal(a.body, &job)
	}
	if err != nil {
		return fmt.Errorf("begin the replay: %w", err)
	}
	err = until(ctx, func() error {
		a, err := m.rig.Ops(ctx, 0, http.MethodGet, "/api/jobs/"+job.ID, nil)
		if err != nil {
			return err
		}
		var now struct {
			State string
			Done  int64
		}
		if err := json.Unmarshal(a.body, &now); err != nil || now.State != "done" {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		m.counts["replayed"] += now.Done
		if now.Done != curable {
			m.wrong = append(m.wrong, fmt.Sprintf("I10: %d of %d dead letters were replayed", now.Done, curable))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return until(ctx, func() error { return m.rig.Quiet(ctx) })
}

func (m *million) replay(ctx context.Context) error {
	return m.replayAll(ctx, map[string]any{"all": true})
}

// judgeReplayed is the same judgement with the poison cured: its reports count for owners
// now, and only what is no envelope is dead.
func (m *million) judgeReplayed(ctx context.Context) error {
	j := m.judges()
	err := j.judge(ctx, judgement{"the whole", j.checker}, judgement{"dead letters", j.deadLetters("resolved")}, judgement{"owners", j.owners}, judgement{"sums", j.sums})
	m.wrong = append(m.wrong, j.wrong...)
	m.counts["violations"] += j.counts["violations"]
	return err
}

// replayAgain sends those that are resolved through once more: no row may change.
func (m *million) replayAgain(ctx context.Context) error {
	j := m.judges()
	before, err := j.versions(ctx)
	if err != nil {
		return err
	}
	if err := m.replayAll(ctx, map[string]any{"filter": map[string]any{"state": "resolved"}}); err != nil {
		return err
	}
	after, err := j.versions(ctx)
	if err != nil {
		return err
	}
	changed := int64(0)
	for i := range after {
		if i >= len(before) || before[i] != after[i] {
			changed++
		}
	}
	m.counts["rows_changed_by_second_replay"] = changed + int64(max(0, len(before)-len(after)))
	if m.counts["rows_changed_by_second_replay"] != 0 {
		m.wrong = append(m.wrong, fmt.Sprintf("I10: the second replay changed %d rows", m.counts["rows_changed_by_second_replay"]))
	}
	return nil
}

func (m *million) record() {
	if m.senders != nil {
		m.counts["events"], m.counts["acknowledged"] = int64(m.plan.n), m.senders.told.count()
		m.counts["distinct"], m.counts["repeats"] = int64(m.plan.distinct), int64(m.plan.n-m.plan.distinct)
		for status, n := range m.senders.told.refused {
			m.counts[fmt.Sprintf("requests_answered_%d", status)] = n
		}
		m.counts["kills_put_off"] = m.killer.spare
		maps.Copy(m.cells, m.actor.cells)
		var stats struct{ Requests map[string]int64 }
		if err := m.rig.control("GET", "stats", nil, &stats); err == nil {
			for name, n := range stats.Requests {
				m.counts["imagekit_"+name] = n
			}
		}
	}
	for _, w := range m.wrong {
		m.t.Errorf("%s", w)
	}
	if m.t.Failed() {
		m.t.Logf("%s", m.rig.lives(m.wrong))
		m.t.Logf("repeat: go test ./internal/campaign -run 'TestMillion$' -timeout 0 -v -args -seed %d -n %d", m.plan.seed, m.plan.n)
	}
	record{Campaign: "million", Seed: m.plan.seed, N: m.plan.n, Counts: m.counts, Violations: m.wrong, Cells: m.cells, Took: time.Since(m.begun).Round(time.Millisecond).String()}.write(m.t)
}
