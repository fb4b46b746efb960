package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// badAnswer is one way in which ImageKit can answer badly, or something in its place.
type badAnswer struct {
	name  string
	fault map[string]any
}

// badAnswers to a question about id. other is what ImageKit would say about another
// file; asList puts an array around it.
func badAnswers(id string, other []byte, asList bool) []badAnswer {
	json := map[string]string{"Content-Type": "application/json"}
	html := map[string]string{"Content-Type": "text/html"}
	wrap := func(object string) string {
		if asList {
			return "[" + object + "]"
		}
		return object
	}
	bad := []badAnswer{
		{"HTML", map[string]any{"status": 200, "body": "<html>maintenance</html>", "headers": html}},
		{"HTMLCalledJSON", map[string]any{"status": 200, "body": "<html>maintenance</html>", "headers": json}},
		{"CutWhileSending", map[string]any{"close": true}},
		{"TruncatedJSON", map[string]any{"status": 200, "body": wrap(`{"type":"file","fileId":"` + id + `","name":"x`)[:30], "headers": json}},
		{"WrongTypes", map[string]any{"status": 200, "body": wrap(`{"type":"file","fileId":"` + id + `","name":7,"url":[],"createdAt":3,"updatedAt":{},"size":"big","versionInfo":"x"}`), "headers": json}},
		{"EmptyBody", map[string]any{"status": 200, "body": "", "headers": json}},
		{"Null", map[string]any{"status": 200, "body": "null", "headers": json}},
		{"AnotherFile", map[string]any{"status": 200, "body": wrap(string(other)), "headers": json}},
		{"NoContent", map[string]any{"status": 204}},
		{"Redirect", map[string]any{"status": 302, "headers": map[string]string{"Location": "/v1/files?limit=1"}}},
		{"Status500", map[string]any{"status": 500, "body": map[string]any{"message": "planted"}}},
		{"Status502HTML", map[string]any{"status": 502, "body": "<html>bad gateway</html>", "headers": html}},
		{"Status503", map[string]any{"status": 503, "body": map[string]any{"message": "planted"}}},
		{"Status503Cut", map[string]any{"status": 503, "close": true, "body": map[string]any{"message": "planted"}}},
		{"Status404HTML", map[string]any{"status": 404, "body": "<html>no such site</html>", "headers": html}},
		{"Status404Cut", map[string]any{"status": 404, "close": true, "body": map[string]any{"message": "The requested file does not exist."}}},
		{"Status429WithReset", map[string]any{"status": 429, "body": map[string]any{"message": "planted"}, "headers": map[string]string{"X-RateLimit-Limit": "40", "X-RateLimit-Interval": "1000", "X-RateLimit-Reset": "120"}}},
		{"Status429WithoutReset", map[string]any{"status": 429, "body": map[string]any{"message": "planted"}}},
	}
	if !asList {
		bad = append(bad, badAnswer{"AList", map[string]any{"status": 200, "body": "[]", "headers": json}})
	} else {
		bad = append(bad, badAnswer{"AnObject", map[string]any{"status": 200, "body": "{}", "headers": json}})
	}
	// Last, because a search that hangs is not sent again for a while.
	return append(bad, badAnswer{"Hang", map[string]any{"latency": "10s"}})
}

// TestBadAnswersAboutOneFile: every bad answer to a look-up by id, to more tries than
// one look has, is retried and ends as the right row. The answer of each file is bad
// in another way, and all of them at once; nobody restarts.
func TestBadAnswersAboutOneFile(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_API_TIMEOUT": "400ms", "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	good := in.uploadServer(map[string]string{"folder": "/good"}, 0)
	in.hint(good)
	in.awaitRow(good)
	other := in.imagekit("GET", "/v1/files/"+good+"/details", true, "", nil).want(t, http.StatusOK).body

	const times = 4 // a look has three tries, so that each event is retried once at least
	bad := badAnswers("", other, false)
	ids, number := in.generate("/bad", len(bad)), map[string]int{}
	for i, id := range ids {
		b := badAnswers(id, other, false)[i]
		b.fault["path"], b.fault["fileId"], b.fault["times"] = "/v1/files/*/details", id, times
		number[b.name] = in.plantFault(b.fault)
	}
	for _, id := range ids {
		in.hint(id)
	}
	in.settledOnce(1 + len(ids))
	fired := in.fired()
	for _, b := range bad {
		if n := fired[number[b.name]]; n != times {
			t.Errorf("%s was answered %d times, want %d", b.name, n, times)
		}
	}
	if n := in.metric(in.env["TRUEUP_OPS_URL"], "trueup_events_settled_total", `end="retry"`); n == 0 {
		t.Error("no event was retried: this proves nothing")
	}
	in.nothingParked()
	in.dev.neverEnded()
}

// TestBadAnswersToASearch: whatever a search answers, the files get their right rows,
// and nobody theirs from an answer that was not about them.
func TestBadAnswersToASearch(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_API_TIMEOUT": "400ms", "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	good := in.uploadServer(map[string]string{"folder": "/good"}, 0)
	in.hint(good)
	in.awaitRow(good)
	other := in.imagekit("GET", "/v1/files/"+good+"/details", true, "", nil).want(t, http.StatusOK).body
	accepted := 1
	for i, b := range badAnswers("", other, true) {
		t.Run(b.name, in.sub(func(in *installation) {
			ids := in.generate("/"+strings.ToLower(b.name), 6)
			fault := badAnswers(ids[0], other, true)[i].fault
			fault["path"], fault["fileId"], fault["times"] = "/v1/files", ids[0], 2
			number := in.plantFault(fault)
			in.reportMany("ann", ids)
			accepted += len(ids)
			in.settledOnce(accepted)
			if in.fired()[number] == 0 {
				in.t.Error("no search was answered so: this proves nothing")
			}
			in.nothingParked()
			in.healFaults()
		}))
	}
	in.dev.neverEnded()
}

// TestOneFileAlwaysFails: the others go on; the event waits in the retries with its
// attempts, and after RETRY_MAX_AGE it is a complete dead letter, and the only one.
func TestOneFileAlwaysFails(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_RETRY_MAX_AGE": "6s", "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	ids := in.generate("/one", 12)
	bad, others := ids[0], ids[1:]
	in.reportMany("ann", others[:1])
	in.awaitRow(others[0])

	in.plantFault(map[string]any{"fileId": bad, "path": "/v1/files/*/details", "status": 500, "body": map[string]any{"message": "planted trouble"}, "headers": map[string]string{"X-Ik-Requestid": "planted-request"}})
	report := []byte(fmt.Sprintf("{ \"fileId\" :%q,\n\t\"extra\":\"é\\u0000\" }", bad))
	in.call("ann", "POST", "/save-metadata", report).want(t, http.StatusAccepted)
	hook := fmt.Sprintf(`{"type":"file.updated",  "id":"odd-1","created_at":"2026-01-02T03:04:05.678Z","data":{"fileId":%q,"x":"\u00e9 \u0000"}}`, bad)
	in.webhookAt(time.Now(), hook).want(t, http.StatusOK)
	testenv.Eventually(t, time.Minute, func() error {
		if n := in.count(`SELECT count(*) FROM trueup.retries WHERE file_id=$1 AND jsonb_array_length(attempts) > 0`, bad); n != 2 {
			return fmt.Errorf("%d events wait with their attempts, want 2", n)
		}
		return nil
	})
	in.reportMany("ann", others)

	in.settles(time.Minute)
	in.healFaults()
	if n := in.count(`SELECT count(*) FROM trueup.ledger l WHERE file_id = ANY($1) AND at > (SELECT min(created_at) FROM trueup.dead_letters)`, others); n != 0 {
		t.Errorf("%d of the other files' events waited until the bad one was given up", n)
	}
	if rows := in.rows(); len(rows) != len(others) {
		t.Errorf("%d rows, want those of the %d other files", len(rows), len(others))
	}
	in.deadLetter("client", report)
	in.deadLetter("webhook", []byte(hook))
	if n := in.count(`SELECT count(*) FROM trueup.dead_letters`); n != 2 {
		t.Errorf("%d dead letters, want 2", n)
	}
	in.identity()
}

// deadLetter holds the one dead letter of a source against what was sent.
func (in *installation) deadLetter(source string, body []byte) {
	in.t.Helper()
	var d struct {
		body                 []byte
		class, reason, state string
		headers              map[string]string
		attempts             []struct {
			At                                         time.Time
			Class, Reason, RequestID, Excerpt, Version string
			Status                                     int
		}
	}
	err := in.db.QueryRow(in.t.Context(), `SELECT body, class, reason, state, headers, attempts FROM trueup.dead_letters WHERE source=$1`, source).
		Scan(&d.body, &d.class, &d.reason, &d.state, &d.headers, &d.attempts)
	if err != nil {
		in.t.Fatal(err)
	}
	if string(d.body) != string(body) {
		in.t.Errorf("body %q, sent was %q", d.body, body)
	}
	if d.class != "imagekit" || d.reason != "gave_up" || d.state != "dead" {
		in.t.Errorf("the dead letter of the %s is %s, %s, %s", source, d.class, d.reason, d.state)
	}
	if d.headers["content-type"] == "" || d.headers["authorization"] != "" || d.headers["webhook-signature"] != "" || d.headers["x-ik-signature"] != "" {
		in.t.Errorf("headers %v", d.headers)
	}
	if len(d.attempts) < 4 {
		in.t.Errorf("%d attempts, want those of 6 s", len(d.attempts))
	}
	var before time.Time
	for _, a := range d.attempts {
		if !a.At.After(before) || a.Class != "imagekit" || a.Status != 500 || a.RequestID != "planted-request" || !strings.Contains(a.Excerpt, "planted trouble") || a.Version == "" {
			in.t.Errorf("attempt %+v", a)
		}
		before = a.At
	}
}
