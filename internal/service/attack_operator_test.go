package service_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// attackOperator: everything below /api/ is closed without the token in its header, for
// every method and path that the API's own document lists, and a browser that was led
// there by another site can do nothing.
func attackOperator(in *installation) {
	base := in.env["TRUEUP_OPS_URL"]
	token := in.env["TRUEUP_OPS_TOKEN"]
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(in.ops("GET", "/openapi.json", nil).want(in.t, http.StatusOK).body, &doc); err != nil {
		in.t.Fatal(err)
	}
	acts := func() int { return in.count(`SELECT count(*) FROM trueup.audit`) }
	before := acts()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var wg sync.WaitGroup
	slots, tried := make(chan struct{}, 30), 0
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		path = strings.ReplaceAll(path, "{id}", "aaaaaaaaaaaaaaaaaaaaaaaa")
		for method := range methods {
			for name, edit := range map[string]func(*http.Request){
				"nothing":               func(*http.Request) {},
				"a wrong token":         func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", len(token))) },
				"a cut token":           func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token[:len(token)-1]) },
				"the token twice":       func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token} },
				"Basic":                 func(r *http.Request) { r.SetBasicAuth("operator", token) },
				"the token in a query":  func(r *http.Request) { r.URL.RawQuery = "token=" + token + "&access_token=" + token },
				"the token in a cookie": func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "token", Value: token}) },
				"an app's token":        func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+in.token("operator")) },
				"the token's name": func(r *http.Request) {
					r.Header.Set("Authorization", "Bearer operator:"+token)
				},
			} {
				r, err := http.NewRequest(strings.ToUpper(method), base+path, strings.NewReader(`{"note":"attack","all":true}`))
				if err != nil {
					in.t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Idempotency-Key", "attack-"+method+path)
				edit(r)
				tried++
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					a := answerOf(plain, r)
					if a.status != http.StatusUnauthorized || !strings.Contains(string(a.body), `"code":"unauthorized"`) {
						in.t.Errorf("%s %s with %s is answered %d %s", method, path, name, a.status, a.body)
					}
				})
			}
		}
	}
	wg.Wait()
	if tried < 150 {
		in.t.Errorf("only %d requests were tried", tried)
	}
	in.crossOrigin(plain, base, token)
	if after := acts(); after != before {
		in.t.Errorf("%d acts were carried out for nobody", after-before)
	}
	if strings.Contains(in.dev.log.String(), token) {
		in.t.Error("the token stands in the log")
	}
}

func answerOf(c *http.Client, r *http.Request) answer {
	res, err := c.Do(r)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: raw}
}

// crossOrigin sends what a browser sends for another site: simple requests with cookies,
// and preflights. No answer may allow that site anything.
func (in *installation) crossOrigin(plain *http.Client, base, token string) {
	in.t.Helper()
	for _, path := range []string{base + "/api/pause", base + "/api/dead/discard", in.env["TRUEUP_URL"] + "/save-metadata", in.env["TRUEUP_URL"] + "/generate-upload-token"} {
		for _, method := range []string{http.MethodPost, http.MethodOptions} {
			for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json"} {
				for _, authorized := range []bool{false, true} {
					r, err := http.NewRequest(method, path, strings.NewReader(`{"note":"csrf","all":true,"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa"}`))
					if err != nil {
						in.t.Fatal(err)
					}
					r.Header.Set("Content-Type", kind)
					r.Header.Set("Origin", "https://evil.example")
					r.Header.Set("Sec-Fetch-Site", "cross-site")
					r.Header.Set("Access-Control-Request-Method", "POST")
					r.Header.Set("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
					r.AddCookie(&http.Cookie{Name: "session", Value: token})
					if kind == "application/json" && method == http.MethodPost && authorized {
						continue // that is a client
					}
					if authorized { // as if a browser had added it by itself
						r.Header.Set("Authorization", "Bearer "+token)
						r.Header.Set("Idempotency-Key", "csrf")
					}
					a := answerOf(plain, r)
					if a.status/100 == 2 || a.header.Get("Access-Control-Allow-Origin") != "" {
						in.t.Errorf("%s %s as %s (token: %v) from another site: %d %v %s", method, path, kind, authorized, a.status, a.header, a.body)
					}
				}
			}
		}
	}
}

// attackOutbound: nothing that clients, webhooks or ImageKit's answers say sends trueup
// anywhere but to ImageKit's API, and never with our key.
func attackOutbound(in *installation) {
	x := newTrap(in.t)
	id := in.uploadV2("ann", map[string]any{"folder": "/outbound"}, 100)
	before := in.awaitRow(id)
	in.call("ann", "POST", "/save-metadata", map[string]string{"fileId": id, "url": x.url + "/url"}).want(in.t, http.StatusAccepted)
	in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q,"url":%q,"thumbnail":%q}`, id, x.url+"/data", x.url+"/thumb")).want(in.t, http.StatusOK)
	in.webhook("upload.post-transform.success", fmt.Sprintf(`{"fileId":%q,"url":%q}`, id, x.url+"/derived")).want(in.t, http.StatusOK)
	in.settles(time.Minute)
	if r := in.rows()[id]; r.URL != before.URL {
		in.t.Errorf("the row's address became %s", r.URL)
	}

	for _, status := range []int{301, 302, 303, 307, 308} {
		fired := in.stats().Faults
		in.plantFault(map[string]any{"path": "/v1/files/" + id + "/details", "status": status, "times": 1, "body": "", "headers": map[string]string{"Location": x.url + "/redirected"}})
		in.hint(id)
		in.awaitFaults(fired, 1)
	}
	in.settles(time.Minute)
	in.healFaults()
	in.hint(id)
	in.settles(time.Minute)
	if r := in.rows()[id]; r.XMin != before.XMin {
		in.t.Errorf("redirects rewrote the row: %+v, was %+v", r, before)
	}

	redirecting := httptest.NewServer(http.RedirectHandler(x.url+"/webhook", http.StatusTemporaryRedirect))
	defer redirecting.Close()
	stdout, stderr, code := once(in.t, in.env, "trigger", "file.created", "--url", redirecting.URL)
	if code != 1 || !strings.Contains(stdout+stderr, "307") {
		in.t.Errorf("trigger to an address that redirects: exit %d\n%s%s", code, stdout, stderr)
	}
	x.sprung(in.t)
	testenv.Eventually(in.t, time.Minute, in.differs)
}
