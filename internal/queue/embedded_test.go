package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
)

func TestEmbedded(t *testing.T) {
	t.Run("SyncsEachMessage", func(t *testing.T) {
		q := open(t, Config{})
		if r := q.Ready(); !r.Accepting || r.Durability != DurabilityFsync || r.Why != "" {
			t.Errorf("ready says %+v", r)
		}
	})

	t.Run("RefusesWithoutSync", func(t *testing.T) {
		q := open(t, Config{forgetful: true})
		if err := q.Publish(testContext(t), []event.Event{ev("a")}); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("got %v", err)
		}
		r := q.Ready()
		if r.Accepting || r.Durability != DurabilityNone || !strings.Contains(r.Why, "TRUEUP_ALLOW_NONDURABLE=1") {
			t.Errorf("ready says %+v", r)
		}
	})

	t.Run("TakesWithoutSyncWhenAllowed_AndSaysSo", func(t *testing.T) {
		q := open(t, Config{forgetful: true, AllowNondurable: true})
		publish(t, q, ev("a"))
		if r := q.Ready(); !r.Accepting || r.Durability != DurabilityNone || r.Why == "" {
			t.Errorf("ready says %+v", r)
		}
	})

	t.Run("KeepsItsDirectoryPrivate", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "deep", "store")
		open(t, Config{Dir: dir})
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", info.Mode(), err)
		}
	})

	t.Run("RefusesADirectoryInUse", func(t *testing.T) {
		dir := t.TempDir()
		q := open(t, Config{Dir: dir})
		_, err := Open(testContext(t), Config{Dir: dir})
		if err == nil || err.Error() != "queue: another process uses the queue's directory "+dir {
			t.Errorf("got %v", err)
		}
		closeQueue(t, q)
		open(t, Config{Dir: dir})
	})

	t.Run("RefusesADirectoryItCannotWrite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(file, "store")
		_, err := Open(testContext(t), Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "cannot create the queue's directory "+dir) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("RefusesABadConfig", func(t *testing.T) {
		for _, c := range []Config{{}, {Dir: "x", Prefix: "Upper"}, {Dir: "x", Prefix: "a.b"}, {Dir: "x", Prefix: "*"}} {
			if _, err := Open(testContext(t), c); err == nil {
				t.Errorf("%+v was taken", c)
			}
		}
	})

	t.Run("KeepsEventsOverARestart", func(t *testing.T) {
		dir := t.TempDir()
		q := open(t, Config{Dir: dir})
		publish(t, q, ev("a"))
		publish(t, q, ev("b"))
		ack(t, next(t, q))
		closeQueue(t, q)
		q = open(t, Config{Dir: dir, MaxBytes: 1 << 30}) // a changed bound is taken over
		if d := next(t, q); d.Envelope.Events[0].ID != "b" {
			t.Errorf("got %+v", d.Envelope)
		}
	})

	t.Run("DeliversAtOnceWhatAFormerProcessHadFetched", func(t *testing.T) {
		c := Config{Dir: t.TempDir(), AckWait: time.Hour}
		q := open(t, c)
		for _, id := range []string{"taken", "ahead", "third"} {
			publish(t, q, ev(id))
		}
		next(t, q)
		closeQueue(t, q)
		q = open(t, c)
		seen := map[string]uint64{}
		for range 3 {
			d := next(t, q)
			seen[d.Envelope.Events[0].ID] = d.Delivered
			if err := d.Extend(); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != 3 || seen["taken"] != 2 {
			t.Errorf("ids and how often delivered: %v", seen)
		}
		info, err := q.js.Consumer(testContext(t), q.names.stream, q.names.consumer)
		if err != nil || info.CachedInfo().Config.AckWait != time.Hour {
			t.Errorf("AckWait is %v (%v)", info.CachedInfo().Config.AckWait, err)
		}
	})
}

// TestKilledPublisher is I1 for this package: what was acknowledged is stored,
// whenever the process is killed. It says nothing of power cuts; for those
// TestEmbedded/SyncsEachMessage reads back that each message is synced.
func TestKilledPublisher(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for run := range 3 {
		p := startPart(t, "publisher", "PART_DIR="+dir, "PART_RUN="+string(rune('a'+run)))
		for range 200 * (run + 1) {
			acknowledged[p.line(t)] = true
		}
		for _, id := range p.kill() {
			acknowledged[id] = true // a line cut short names nothing that is stored, and fails below
		}
	}
	stored := map[string]bool{}
	for _, env := range drain(t, open(t, Config{Dir: dir})) {
		for _, e := range env.Events {
			if stored[e.ID] {
				t.Errorf("%s is stored twice", e.ID)
			}
			stored[e.ID] = true
		}
	}
	for id := range acknowledged {
		if !stored[id] {
			t.Errorf("%s was acknowledged and is not stored", id)
		}
	}
	t.Logf("%d acknowledged over three kills, %d stored", len(acknowledged), len(stored))
}

// TestFullDisk runs in a process of its own, because only a process can be kept from
// writing. Its server stops storing at the first failed write, and for good: it has
// to be started again, without the process.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	p := startPart(t, "fulldisk", "PART_DIR="+dir)
	for _, want := range []string{
		"refused true",
		"the embedded server cannot store in " + dir,
		"accepted again {true fsync }",
		"nothing lost",
	} {
		if got := p.line(t); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestABusyMachineIsNoBrokenStore: a server that could not answer its own check within
// a millisecond has not stopped storing. Restarted for that, it would lose the turn. One
// check in 40,000 came to that here, so these see about eight.
func TestABusyMachineIsNoBrokenStore(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir()})
	var asked atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for asked.Add(1) < 300_000 {
				if why := q.server.broken(); why != "" {
					t.Error(why)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestRefusesADamagedStore(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Config{Dir: dir})
	publish(t, q, ev("a"))
	closeQueue(t, q)
	meta := filepath.Join(dir, "jetstream", "$G", "streams", "TRUEUP_EVENTS", "meta.inf")
	good, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if q, err := Open(testContext(t), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "the store in "+dir+" is damaged and was left as it is") {
		t.Errorf("got %v", err)
		if q != nil {
			closeQueue(t, q)
		}
	}
	if err := os.WriteFile(meta, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := next(t, open(t, Config{Dir: dir})); d.Envelope.Events[0].ID != "a" {
		t.Errorf("after the repair: %+v", d)
	}
}
