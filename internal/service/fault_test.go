package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// What the tests of outages and bad answers share: faults that are planted and proved
// to have fired, and the signs by which those outside see what trueup makes of them.

// plantFault adds a fault to the emulator and returns its number.
func (in *installation) plantFault(fault map[string]any) int {
	in.t.Helper()
	id, _ := in.control("POST", "faults", fault).get(in.t, "id").(float64)
	if id < 1 {
		in.t.Fatalf("the fault %v has no number", fault)
	}
	return int(id)
}

// healFaults removes all faults.
func (in *installation) healFaults() {
	in.t.Helper()
	in.control("DELETE", "faults", nil)
}

// fired is how often each fault has fired, by its number.
func (in *installation) fired() map[int]int {
	in.t.Helper()
	var list []struct{ ID, Fired int }
	if err := json.Unmarshal(in.control("GET", "faults", nil).body, &list); err != nil {
		in.t.Fatal(err)
	}
	times := map[int]int{}
	for _, f := range list {
		times[f.ID] = f.Fired
	}
	return times
}

// awaitFaults waits until n more faults have fired than before.
func (in *installation) awaitFaults(before, n int) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if now := in.stats().Faults; now < before+n {
			return fmt.Errorf("%d faults have fired, want %d", now-before, n)
		}
		return nil
	})
}

// generate makes n files without webhooks and returns their ids.
func (in *installation) generate(folder string, n int) []string {
	in.t.Helper()
	before := in.library()
	in.control("POST", "files/generate", map[string]any{"count": n, "folder": folder, "spread": "10m"})
	var ids []string
	for id := range in.library() {
		if _, old := before[id]; !old {
			ids = append(ids, id)
		}
	}
	if len(ids) != n {
		in.t.Fatalf("%d files generated, want %d", len(ids), n)
	}
	slices.Sort(ids)
	return ids
}

// reportMany reports files in one request and returns the reports' ids.
func (in *installation) reportMany(user string, fileIDs []string) (reports []string) {
	in.t.Helper()
	var body []map[string]string
	for _, id := range fileIDs {
		body = append(body, map[string]string{"fileId": id})
	}
	list, _ := in.call(user, "POST", "/save-metadata", body).want(in.t, http.StatusAccepted).get(in.t, "reports").([]any)
	for _, r := range list {
		one, _ := r.(map[string]any)
		id, _ := one["reportId"].(string)
		reports = append(reports, id)
	}
	if len(reports) != len(fileIDs) {
		in.t.Fatalf("%d report ids for %d reports", len(reports), len(fileIDs))
	}
	return reports
}

// hint sends a signed webhook that names the file and nothing else: only a look-up by
// id may answer it.
func (in *installation) hint(fileID string) {
	in.t.Helper()
	in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q}`, fileID)).want(in.t, http.StatusOK)
}

// status is GET /api/status as far as the tests read it.
type status struct {
	Worker struct {
		Here   bool   `json:"here"`
		Turn   int    `json:"turn"`
		Paused bool   `json:"paused"`
		By     string `json:"pausedBy"`
		Note   string `json:"pausedNote"`
		Outage string `json:"outage"`
	} `json:"worker"`
	Queue struct {
		Waiting, Unacked int
	} `json:"queue"`
	Retries     *struct{ Count int }   `json:"retries"`
	DeadLetters map[string]int         `json:"deadLetters"`
	Fuse        struct{ Latched bool } `json:"fuse"`
	Unavailable map[string]string      `json:"unavailable"`
}

func (in *installation) status() (s status) {
	in.t.Helper()
	a := in.ops("GET", "/api/status", nil).want(in.t, http.StatusOK)
	if err := json.Unmarshal(a.body, &s); err != nil {
		in.t.Fatal(err)
	}
	return s
}

// awaitOutage waits until status says that the worker waits for what.
func (in *installation) awaitOutage(what string) (s status) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if s = in.status(); s.Worker.Outage != what {
			return fmt.Errorf("the worker waits for %q, want %q", s.Worker.Outage, what)
		}
		return nil
	})
	return s
}

// metric sums a metric of the process at ops over the series whose labels contain all
// of labels, each written name="value".
func (in *installation) metric(ops, name string, labels ...string) (sum float64) {
	in.t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}).Get(ops + "/metrics")
	if err != nil {
		in.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		in.t.Fatalf("GET /metrics: %s %v", resp.Status, err)
	}
	for line := range strings.Lines(string(raw)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " ")+1:]), 64)
		if err != nil {
			in.t.Fatalf("metric %q: %v", line, err)
		}
		sum += value
	}
	return sum
}

// nothingParked fails when an event waits in the retries or lies in the dead letters.
func (in *installation) nothingParked() {
	in.t.Helper()
	if n := in.count(`SELECT (SELECT count(*) FROM trueup.retries) + (SELECT count(*) FROM trueup.dead_letters)`); n != 0 {
		in.t.Errorf("%d events are parked, want none", n)
	}
}

// noTries fails when any event was sent to the retries since the process started.
func (in *installation) noTries() {
	in.t.Helper()
	if n := in.metric(in.env["TRUEUP_OPS_URL"], "trueup_events_settled_total", `end="retry"`); n != 0 {
		in.t.Errorf("%v attempts were counted, want none", n)
	}
}

// lines is how many events have an end in the ledger.
func (in *installation) lines() int {
	in.t.Helper()
	return in.count(`SELECT count(*) FROM trueup.ledger WHERE source IN ('client', 'webhook')`)
}

// settledOnce waits until all is quiet and then holds the table against the library
// and the ledger's events against the number accepted.
func (in *installation) settledOnce(accepted int) {
	in.t.Helper()
	in.settles(2 * time.Minute)
	in.converges(time.Minute)
	if n := in.lines(); n != accepted {
		in.t.Errorf("%d events have an end in the ledger, %d were accepted", n, accepted)
	}
	in.identity()
}

// neverEnded fails when a process is not the one that was started.
func (p *process) neverEnded() {
	p.t.Helper()
	select {
	case <-p.exited:
		p.t.Errorf("trueup %v has ended", p.args)
	default:
	}
}

// set changes the environment of the next start.
func (p *process) set(name, value string) {
	p.env = slices.DeleteFunc(p.env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	p.env = append(p.env, name+"="+value)
}

// refused fails unless an answer is ingest's 503: the error's shape, a code and a
// Retry-After.
func (a answer) refused(in *installation) error {
	switch {
	case a.status != http.StatusServiceUnavailable:
		return fmt.Errorf("status %d, want 503: %s", a.status, a.body)
	case a.header.Get("Retry-After") == "":
		return errors.New("a 503 without Retry-After")
	case a.text(in.t, "code") == "" || a.text(in.t, "error") == "" || a.get(in.t, "success") != false:
		return fmt.Errorf("a 503 of another shape: %s", a.body)
	}
	return nil
}

// awaitAccepting waits until a report is accepted again and returns how many were
// accepted: one.
func (in *installation) awaitAccepting(fileID string) int {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if a := in.call("ann", "POST", "/save-metadata", map[string]string{"fileId": fileID}); a.status != http.StatusAccepted {
			return fmt.Errorf("still refused: %d %s", a.status, a.body)
		}
		return nil
	})
	return 1
}
