package service_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/testenv"
)

// traces is how much the database and the queue hold of events.
func (in *installation) traces() int {
	in.t.Helper()
	in.settles(time.Minute)
	return in.count(`SELECT (SELECT count(*) FROM trueup.ledger) + (SELECT count(*) FROM trueup.retries) + (SELECT count(*) FROM trueup.dead_letters) + (SELECT count(*) FROM trueup.file_state)`)
}

// attackIDs: what is no fileId goes nowhere, from wherever it comes.
func attackIDs(in *installation) {
	before := in.traces()
	for _, id := range []string{
		"../../v1/files", "a/b", "a/../b", "a?x=1", "a#b", "a%2fb", "a%00", "a\x00b", "a b", "a\nb", "a;b", `a"] OR id : "`, "a\\b", ".", "..", "ａａａ", "é", "",
		strings.Repeat("a", 65), strings.Repeat("a", 10_000), "https://evil.example/x", "a\u202eb", "a&limit=1", "*",
	} {
		for what, body := range map[string]any{"one": map[string]string{"fileId": id}, "beside a good one": []map[string]string{{"fileId": "aaaaaaaaaaaaaaaaaaaaaaaa"}, {"fileId": id}}} {
			if a := in.call("eve", "POST", "/save-metadata", body); a.status != http.StatusBadRequest {
				in.t.Errorf("the fileId %q %s is answered %d %s", id, what, a.status, a.body)
			}
		}
		in.webhook("file.deleted", string(asJSON(in.t, map[string]any{"fileId": id, "updatedAt": "2026-01-02T03:04:05Z"}))).want(in.t, http.StatusOK)
		if a := in.ops("GET", "/api/files/"+url.PathEscape(id), nil); a.status != http.StatusBadRequest && a.status != http.StatusNotFound {
			in.t.Errorf("the passport of %q is answered %d %s", id, a.status, a.body)
		}
	}
	for _, body := range []string{`{"FILEID":"a"}`, `{"fileId":["a"]}`, `{"fileId":{"$ne":""}}`, `{"fileId":null}`, `{"fileId":true}`, `"a"`, `null`, `[[{"fileId":"a"}]]`, "\xff\xfe{}", `{"fileId":"a"}{"fileId":"b"}`, `{"fileId":"\ud800"}`} {
		in.call("eve", "POST", "/save-metadata", []byte(body)).want(in.t, http.StatusBadRequest)
	}
	for _, id := range []string{"rp_", "..%2f..", "rp_01JZ0000000000000000000000_AAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("a", 3000), "%00", "x?wait=20s"} {
		in.call("eve", "GET", "/reports/"+id, nil).want(in.t, http.StatusNotFound)
	}
	if after := in.traces(); after != before {
		in.t.Errorf("ids that are none left %d traces", after-before)
	}
	in.askedOnlyIDs()
}

var saneAsk = regexp.MustCompile(`^/v1/files(/[A-Za-z0-9_-]{1,64}/details)?$`)

// askedOnlyIDs fails when the emulator was asked by trueup for anything but listings
// and look-ups.
func (in *installation) askedOnlyIDs() {
	in.t.Helper()
	var log struct {
		Items []struct{ Method, Path string }
	}
	if err := json.Unmarshal(in.control("GET", "requests", nil).body, &log); err != nil {
		in.t.Fatal(err)
	}
	asked := 0
	for _, r := range log.Items {
		if r.Method != http.MethodGet || strings.HasPrefix(r.Path, "/_emulator/") {
			continue
		}
		if asked++; !saneAsk.MatchString(r.Path) {
			in.t.Errorf("ImageKit was asked for %q", r.Path)
		}
	}
	if asked == 0 {
		in.t.Error("the log shows no question: this proves nothing")
	}
}

// attackWebhooks: what is not plain, signed JSON of a bearable size has no effect; a
// captured delivery sent again changes nothing.
func attackWebhooks(in *installation) {
	id := in.uploadServer(map[string]string{"folder": "/hooks"}, 90)
	before := in.awaitRow(id)
	in.settles(time.Minute)
	data := fmt.Sprintf(`{"fileId":%q}`, id)
	// One set that verifies is whole proof of the body; what stands beside it can take
	// nothing away (package signature says why).
	in.webhookIs("good by the standard set beside a bad one", in.webhook("file.updated", data, func(h http.Header) { h.Set("X-Ik-Signature", "t=1,v1=00") }), http.StatusOK)
	in.webhookIs("good by the older set beside a bad one", in.webhook("file.updated", data, func(h http.Header) { h.Set("Webhook-Signature", "v1,AAAA") }), http.StatusOK)
	in.settles(time.Minute)
	traces := in.traces()
	both := func(h http.Header) { h.Set("Webhook-Signature", "v1,AAAA"); h.Set("X-Ik-Signature", "t=1,v1=00") }
	in.webhookIs("bad by both sets", in.webhook("file.deleted", data, both), http.StatusUnauthorized)
	in.webhookIs("of another id than signed", in.webhook("file.deleted", data, func(h http.Header) { h.Del("X-Ik-Signature"); h.Set("Webhook-Id", "msg_other") }), http.StatusUnauthorized)
	in.webhookIs("of another time than signed", in.webhook("file.deleted", data, func(h http.Header) {
		h.Del("X-Ik-Signature")
		h.Set("Webhook-Timestamp", strconv.FormatInt(time.Now().Add(time.Second).Unix(), 10))
	}), http.StatusUnauthorized)
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Ik-Signature"} {
		in.webhookIs("with two lines of "+name, in.webhook("file.deleted", data, func(h http.Header) { h.Add(name, h.Get(name)) }), http.StatusUnauthorized)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(`{"type":"file.deleted","data":` + data + `}`))
	_ = z.Close()
	for _, encoding := range []string{"gzip", "deflate", "br", "gzip, identity"} {
		in.webhookIs("encoded as "+encoding, in.webhookAt(time.Now(), zipped.String(), func(h http.Header) { h.Set("Content-Encoding", encoding) }), http.StatusUnsupportedMediaType)
	}
	for _, kind := range []string{"", "text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/x-www-form-urlencoded"} {
		in.webhookIs("of type "+kind, in.webhook("file.deleted", data, func(h http.Header) { h.Set("Content-Type", kind) }), http.StatusUnsupportedMediaType)
	}
	in.tooLarge(id)
	if status := in.bare("POST", "/webhooks/imagekit", "Webhook-Signature: "+strings.Repeat("v1,AAAA ", 4000)); status != 431 {
		in.t.Errorf("headers of 32 KB are answered %d", status)
	}
	if status := in.bare("POST", "/webhooks/imagekit", strings.TrimSuffix(strings.Repeat("X-A: b\r\n", 5000), "\r\n")); status != 431 {
		in.t.Errorf("5,000 headers are answered %d", status)
	}
	if after := in.traces(); after != traces {
		in.t.Errorf("webhooks that do not count left %d traces", after-traces)
	}
	body := fmt.Sprintf(`{"type":"file.created","id":"captured","created_at":"2026-01-02T03:04:05.678Z","data":%s}`, data)
	at := time.Now()
	for range 20 {
		in.webhookAt(at, body).want(in.t, http.StatusOK)
	}
	in.settles(time.Minute)
	if after := in.rows()[id]; after.XMin != before.XMin {
		in.t.Errorf("a delivery sent again rewrote the row: %+v, was %+v", after, before)
	}
}

// tooLarge sends ten megabytes, said and unsaid. Whoever sends more than is read and
// thrown away may see the connection end before the answer.
func (in *installation) tooLarge(fileID string) {
	in.t.Helper()
	body := `{"type":"file.deleted","data":{"fileId":"` + fileID + `","x":"` + strings.Repeat("x", 10<<20) + `"}}`
	for what, user := range map[string]string{"/webhooks/imagekit": "", "/save-metadata": "eve", "/generate-upload-token": "eve"} {
		for _, said := range []bool{true, false} {
			r, err := http.NewRequest(http.MethodPost, in.url()+what, strings.NewReader(body))
			if err != nil {
				in.t.Fatal(err)
			}
			if !said {
				r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader(body))
			}
			r.Header.Set("Content-Type", "application/json")
			if user != "" {
				r.Header.Set("Authorization", "Bearer "+in.token(user))
			}
			if a := in.send(r); a.status != http.StatusRequestEntityTooLarge && a.status != 0 {
				in.t.Errorf("10 MB to %s (length said: %v): %d %s", what, said, a.status, last(string(a.body), 200))
			}
		}
	}
}

// sendSlowly opens connections that never come to an end by themselves, a byte at a
// time, to both listeners: in the headers, and in the body. What it returns waits until
// trueup has closed all of them; meanwhile everything else has been served.
func (in *installation) sendSlowly() func(*installation) {
	in.t.Helper()
	public, ops := strings.TrimPrefix(in.env["TRUEUP_URL"], "http://"), strings.TrimPrefix(in.env["TRUEUP_OPS_URL"], "http://")
	app, operator := "Authorization: Bearer "+in.token("eve"), "Authorization: Bearer "+in.env["TRUEUP_OPS_TOKEN"]
	const plain = "Content-Type: application/json\r\nContent-Length: 10000\r\n"
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[string]int{}
	for _, x := range []struct{ name, addr, head string }{
		{"public headers", public, "POST /webhooks/imagekit HTTP/1.1\r\nHost: x\r\nX-Slow: "},
		{"operator headers", ops, "GET /api/status HTTP/1.1\r\nHost: x\r\n" + operator + "\r\nX-Slow: "},
		{"webhook body", public, "POST /webhooks/imagekit HTTP/1.1\r\nHost: x\r\n" + plain + "\r\n"},
		{"report body", public, "POST /save-metadata HTTP/1.1\r\nHost: x\r\n" + app + "\r\n" + plain + "\r\n"},
		{"operator body", ops, "POST /api/pause HTTP/1.1\r\nHost: x\r\nIdempotency-Key: slow\r\n" + operator + "\r\n" + plain + "\r\n"},
	} {
		for range 20 {
			c, err := net.Dial("tcp", x.addr)
			if err != nil {
				in.t.Fatal(err)
			}
			mu.Lock()
			open[x.name]++
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				if trickle(c, x.head) {
					mu.Lock()
					defer mu.Unlock()
					open[x.name]--
				}
			})
		}
	}
	return func(in *installation) {
		in.t.Helper()
		wg.Wait()
		for name, n := range open {
			if n != 0 {
				in.t.Errorf("%d of 20 slow connections (%s) were never closed", n, name)
			}
		}
		if s := in.status(); s.Worker.Paused {
			in.t.Error("a request that never came to its end was carried out")
		}
	}
}

// trickle sends head and then a byte at a time, and reports whether the other side
// ended it. Two minutes without that are no answer.
func trickle(c net.Conn, head string) bool {
	ended := make(chan struct{})
	go func() { // ends with the connection
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	if _, err := io.WriteString(c, head); err != nil {
		return false
	}
	tick, enough := time.NewTicker(250*time.Millisecond), time.NewTimer(2*time.Minute)
	defer tick.Stop()
	defer enough.Stop()
	for {
		select {
		case <-ended:
			return true
		case <-enough.C:
			_ = c.Close()
			<-ended
			return false
		case <-tick.C:
			_, _ = c.Write([]byte(" "))
		}
	}
}

// attackStored: what somebody had us keep is shown as data, to browsers and terminals.
func attackStored(in *installation) {
	const script, escape = "<script>alert(1)</script>", "\x1b[31m\u009b31m"
	ids := in.generate("/stored", 2)
	broken, named := ids[0], ids[1]
	defer in.healFaults()
	fired := in.stats().Faults
	in.plantFault(map[string]any{"path": "/v1/files*", "fileId": broken, "status": 503, "body": script + escape, "headers": map[string]string{"Content-Type": "text/html", "x-ik-requestId": script}})
	r, err := http.NewRequest(http.MethodPost, in.url()+"/save-metadata", bytes.NewReader(asJSON(in.t, map[string]string{"fileId": broken, script: escape, "url": "javascript:alert(1)"})))
	if err != nil {
		in.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", script+" \x9b31m")
	r.Header.Set("Authorization", "Bearer "+in.token(script))
	in.send(r).want(in.t, http.StatusAccepted)
	in.awaitFaults(fired, 1)

	details := in.imagekit("GET", "/v1/files/"+named+"/details", true, "", nil).want(in.t, http.StatusOK)
	var f map[string]any
	if err := json.Unmarshal(details.body, &f); err != nil {
		in.t.Fatal(err)
	}
	maps.Copy(f, map[string]any{"name": script + escape, "filePath": "/" + escape, "tags": []string{script, escape}, "mime": script, "updatedAt": "2098-01-02T03:04:05.000Z"})
	in.plantFault(map[string]any{"path": "/v1/files/" + named + "/details", "status": 200, "body": f, "headers": map[string]string{"Content-Type": "application/json"}})
	in.hint(named)
	testenv.Eventually(in.t, time.Minute, func() error {
		if r := in.rows()[named]; r.Name != script+escape {
			return fmt.Errorf("the row's name is %q", r.Name)
		}
		return nil
	})
	var letter string
	testenv.Eventually(in.t, time.Minute, func() error {
		return in.db.QueryRow(in.t.Context(), "SELECT id FROM trueup.dead_letters WHERE file_id=$1", broken).Scan(&letter)
	})
	for _, path := range []string{"/api/dead", "/api/dead/" + letter, "/api/dead/count", "/api/dead/export", "/api/files/" + broken, "/api/files/" + named, "/api/status", "/api/jobs", "/api/runs", "/" + url.PathEscape(script), "/api/files/" + url.PathEscape(script)} {
		a := in.ops("GET", path, nil)
		in.shownAsData(path, a)
		if strings.Contains(path, broken) || strings.HasSuffix(path, letter) {
			if !bytes.Contains(a.body, []byte("alert(1)")) {
				in.t.Errorf("%s does not show it at all: this proves nothing", path)
			}
		}
	}
	in.shownAsData("/reports", in.call("eve", "GET", "/reports/"+url.PathEscape(script), nil))
	for _, args := range [][]string{{"dead", "list"}, {"dead", "show", letter}, {"dead", "count"}, {"dead", "export"}, {"why", broken}, {"why", named}, {"status"}} {
		stdout, stderr, _ := once(in.t, in.env, args...)
		archive := args[len(args)-1] == "export" // byte for byte, to be read again
		if i := strings.IndexFunc(stdout+stderr, func(r rune) bool { return r == 0x1b || r >= 0x80 && r < 0xa0 && !archive }); i >= 0 || !utf8.ValidString(stdout+stderr) {
			in.t.Errorf("trueup %v sends a terminal %q", args, (stdout + stderr)[max(0, i-200):])
		}
	}
	in.healFaults()
	in.hint(named)
	in.hint(broken)
}

// shownAsData fails unless a browser takes an answer for nothing but data.
func (in *installation) shownAsData(path string, a answer) {
	in.t.Helper()
	kind := a.header.Get("Content-Type")
	if !strings.HasPrefix(kind, "application/json") && kind != "application/x-ndjson" || a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		in.t.Errorf("%s is answered %d as %v", path, a.status, a.header)
	}
	// An archive is saved, not shown.
	saved := strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment")
	if bytes.ContainsAny(a.body, "\x1b") || bytes.Contains(a.body, []byte("<script")) && !saved {
		in.t.Errorf("%s shows it raw: %q", path, last(string(a.body), 500))
	}
}

// attackLines: nobody writes lines of ours, or colours, into the log.
func attackLines(in *installation) {
	const injected = "\r\n" + `{"level":"ERROR","msg":"INJECTED"}` + "\n\x1b[2J\u2028INJECTED"
	quoted := string(asJSON(in.t, injected))
	in.webhook("file.created", `{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa","x":`+quoted+`}`).want(in.t, http.StatusOK)
	in.webhookAt(time.Now(), `{"type":`+quoted+`,"id":`+quoted+`,"data":{"fileId":"aaaaaaaaaaaaaaaaaaaaaaab"}}`).want(in.t, http.StatusOK)
	in.call("INJECTED\u2028\u2029\u0085x", "POST", "/save-metadata", map[string]string{"fileId": injected})
	in.call("eve\u2028INJECTED", "POST", "/save-metadata", map[string]string{"fileId": "aaaaaaaaaaaaaaaaaaaaaaac", "url": injected}).want(in.t, http.StatusAccepted)
	for _, path := range []string{"/%0d%0aINJECTED", "/reports/%0aINJECTED%1b%5b2J", "/\x1b[2J", "/%e2%80%a8INJECTED"} {
		in.bare("GET", path, "X-Request-Id: a\x1bINJECTED", "User-Agent: \x9bINJECTED", "X-Forwarded-For: 1.2.3.4\x85INJECTED")
		in.bare("POST", "/webhooks/imagekit", "Content-Type: application/json", "Content-Length: 2", "X-Request-Id: a INJECTED", "Webhook-Id: \xffINJECTED", "Connection: close", "", "{}")
	}
	for _, path := range []string{"/api/files/%0aINJECTED", "/%0d%0a%1b[2JINJECTED", "/api/dead/%e2%80%a8INJECTED"} {
		in.ops("GET", path, nil)
		r, err := http.NewRequest(http.MethodGet, in.env["TRUEUP_OPS_URL"]+path, nil)
		if err != nil {
			in.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer INJECTED")
		if res, err := http.DefaultClient.Do(r); err == nil {
			_ = res.Body.Close()
		}
	}
	in.ops("POST", "/api/pause", map[string]string{"note": injected}).want(in.t, http.StatusOK)
	in.ops("POST", "/api/resume", map[string]string{"note": injected}).want(in.t, http.StatusOK)
	in.settles(time.Minute)
	lines, mentioned := 0, 0
	s := bufio.NewScanner(strings.NewReader(in.dev.log.String()))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var line struct{ Level, Msg string }
		if err := json.Unmarshal(s.Bytes(), &line); err != nil && lines > 0 || line.Msg == "INJECTED" { // the first may be cut
			in.t.Errorf("a line that is not ours: %q", s.Text())
		}
		if strings.ContainsFunc(s.Text(), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' }) {
			in.t.Errorf("a line that a terminal obeys: %q", s.Text())
		}
		if lines++; strings.Contains(s.Text(), "INJECTED") {
			mentioned++
		}
	}
	if lines < 100 || mentioned == 0 {
		in.t.Errorf("%d lines, %d of which mention it: this proves nothing", lines, mentioned)
	}
}

// guesses is how many ids are guessed; twenty thousand take a minute.
var guesses = flag.Int("guesses", 1000, "ids that TestAttacks/GuessingIDs guesses")

// attackGuessing: guesses teach nothing. Accepted reports on one's own
// file, on another's and on none look alike, to the byte; what they take is printed.
func attackGuessing(in *installation) {
	theirs := in.uploadV2("ann", map[string]any{"folder": "/guess"}, 95)
	mine := in.uploadV2("eve", map[string]any{"folder": "/guess"}, 96)
	in.awaitRow(theirs)
	in.awaitRow(mine)
	guess := func() string { return fmt.Sprintf("%08x%016x", rand.Uint32(), rand.Uint64()) } //nolint:gosec // guesses need not be hard to guess
	took := map[string][]time.Duration{}
	shapes := map[string]bool{}
	for range 200 {
		for _, name := range []string{"mine", "theirs", "none"} {
			id := map[string]string{"mine": mine, "theirs": theirs, "none": guess()}[name]
			began := time.Now()
			a := in.call("eve", "POST", "/save-metadata", map[string]string{"fileId": id}).want(in.t, http.StatusAccepted)
			took[name] = append(took[name], time.Since(began))
			shapes[shape(a)] = true
		}
	}
	if len(shapes) != 1 {
		in.t.Errorf("answers differ in more than their report id: %v", shapes)
	}
	for name, all := range took {
		slices.Sort(all)
		in.t.Logf("%s: p10 %v, p50 %v, p90 %v, p99 %v", name, all[len(all)/10], all[len(all)/2], all[len(all)*9/10], all[len(all)*99/100])
	}
	in.t.Logf("farthest apart: mine and theirs %.3f, theirs and none %.3f (Kolmogorov-Smirnov, n = 200)", apartness(took["mine"], took["theirs"]), apartness(took["theirs"], took["none"]))

	sizes := map[string]bool{}
	var asked []string
	for sent := 0; sent < *guesses; sent += 100 {
		ids := make([]string, 100)
		for i := range ids {
			ids[i] = guess()
		}
		if sent%200 == 0 {
			ids[sent/200%100] = theirs
		}
		var body []map[string]string
		for _, id := range ids {
			body = append(body, map[string]string{"fileId": id})
		}
		a := in.call("eve", "POST", "/save-metadata", body).want(in.t, http.StatusAccepted)
		sizes[shape(a)] = true
		if sent%1000 == 0 {
			list, _ := a.get(in.t, "reports").([]any)
			one, _ := list[sent/200%100].(map[string]any)
			id, _ := one["reportId"].(string)
			asked = append(asked, id)
		}
	}
	if len(sizes) != 1 {
		in.t.Errorf("answers to a hundred guesses differ in shape: %v", sizes)
	}
	in.settles(4 * time.Minute)
	in.notClaimable("eve", asked...)
	in.belongs(theirs, "ann", "proven")
	if n := in.count("SELECT count(*) FROM public.imagekit_files WHERE user_id = 'eve' AND file_path LIKE '/guess/%'"); n != 1 {
		in.t.Errorf("eve has %d files in /guess, want her own", n)
	}
}

// shape is an answer's status, size and headers, without what is random in each.
func shape(a answer) string {
	names := slices.Sorted(maps.Keys(a.header))
	return fmt.Sprint(a.status, len(a.body), a.header.Get("Content-Length"), len(a.header.Get("X-Request-Id")), len(a.header.Get("Location")), names)
}

// apartness is the largest distance between two distributions, from 0 to 1; both sorted.
func apartness(a, b []time.Duration) (most float64) {
	for _, at := range append(slices.Clone(a), b...) {
		below := func(s []time.Duration) float64 {
			n, _ := slices.BinarySearchFunc(s, at, func(x, y time.Duration) int {
				if x <= y {
					return -1
				}
				return 1
			})
			return float64(n) / float64(len(s))
		}
		most = max(most, max(below(a)-below(b), below(b)-below(a)))
	}
	return most
}
