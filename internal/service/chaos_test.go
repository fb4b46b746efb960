package service_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestReportsSurviveFaultsAndKills: reports of 1,000 files, each sent three times in
// random order, with a fifth of ImageKit's answers failing and a kill -9 in the
// middle, give exactly 1,000 right rows; sending all of it again rewrites none.
//
// The clients are persistent, as ours are told to be: a report that was not answered
// 202 is sent again. What was answered 202 is never sent again in the first round, so
// that a lost event would be a missing row.
func TestReportsSurviveFaultsAndKills(t *testing.T) {
	t.Parallel()
	const files, times = 1000, 3
	in := startDev(t, map[string]string{"TRUEUP_NOT_FOUND_GRACE": "30s"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 5000, "burst": 5000}})
	in.control("POST", "files/generate", map[string]any{"count": files, "folder": "/chaos", "spread": "20m"})
	var ids []string
	for id := range in.library() {
		ids = append(ids, id)
	}
	if len(ids) != files {
		t.Fatalf("%d files generated, want %d", len(ids), files)
	}
	in.control("POST", "faults", map[string]any{"path": "/v1/files*", "status": 503, "probability": 0.2, "body": map[string]any{"message": "planted"}})

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var sends []string
	for range times {
		sends = append(sends, ids...)
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(sends), func(i, j int) { sends[i], sends[j] = sends[j], sends[i] })

	killed := make(chan struct{})
	var sent atomic.Int64
	kill := sync.OnceFunc(func() { in.kill9Dev(); close(killed) })
	in.sendAll(sends, func() {
		if sent.Add(1) == int64(len(sends)/2) {
			kill()
		}
	})
	<-killed
	in.settles(4 * time.Minute)
	in.control("DELETE", "faults", nil)
	in.owned(files, "ann")

	s := in.stats()
	if s.Faults < 50 {
		t.Errorf("only %d planted faults fired since the kill", s.Faults)
	}
	t.Logf("calls %v, faults %d", s.Requests, s.Faults)
	in.identity()

	before := in.rows()
	in.sendAll(sends, func() {})
	in.settles(4 * time.Minute)
	after, rewritten := in.rows(), 0
	for id, r := range before {
		if after[id].XMin != r.XMin {
			rewritten++
		}
	}
	if rewritten > 0 || len(after) != len(before) {
		t.Errorf("sending all of it again rewrote %d rows; %d rows, were %d", rewritten, len(after), len(before))
	}
}

// sendAll reports each file until it is answered 202, eight at a time.
func (in *installation) sendAll(fileIDs []string, accepted func()) {
	in.t.Helper()
	work := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := range work {
				testenv.Eventually(in.t, 2*time.Minute, func() error {
					a := in.call("ann", "POST", "/save-metadata", map[string]string{"fileId": id})
					if a.status != http.StatusAccepted {
						return fmt.Errorf("report of %s: %d %s", id, a.status, a.body)
					}
					return nil
				})
				accepted()
			}
		})
	}
	for _, id := range fileIDs {
		work <- id
	}
	close(work)
	wg.Wait()
}

// owned fails unless the table equals the library and every row is user's.
func (in *installation) owned(files int, user string) {
	in.t.Helper()
	if err := in.differs(); err != nil {
		in.t.Error(err)
	}
	rows := in.rows()
	if len(rows) != files {
		in.t.Errorf("%d rows, want %d", len(rows), files)
	}
	var others []string
	for id, r := range rows {
		if r.User != user {
			others = append(others, id+" of "+r.User)
		}
	}
	if len(others) > 0 {
		in.t.Errorf("%d rows are not %s's: %s", len(others), user, strings.Join(others[:min(5, len(others))], ", "))
	}
}
