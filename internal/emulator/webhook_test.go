package emulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// hooked is an emulator without limits that sends to in.
func hooked(t *testing.T, in *inbox, settings string) *account {
	t.Helper()
	a := start(t, Config{WebhookURL: in.URL})
	a.settings1(`{"rateLimit":{"perSecond":0},"writeRateLimit":{"perSecond":0}}`)
	if settings != "" {
		a.settings1(`{"webhooks":` + settings + `}`)
	}
	return a
}

func (a *account) webhookStats() map[string]any {
	a.t.Helper()
	return a.must(200, "GET", "/_emulator/stats", "").object()["webhooks"].(map[string]any)
}

// settled waits until nothing is pending.
func (a *account) settled() map[string]any {
	a.t.Helper()
	var s map[string]any
	eventually(a.t, "every webhook settled", func() bool { s = a.webhookStats(); return s["pending"] == 0.0 })
	return s
}

func TestWebhooksOfEachOperation(t *testing.T) {
	in := newInbox(t, nil)
	a := hooked(t, in, "")
	count := 0
	expect := func(what string, want ...string) {
		t.Helper()
		got := kinds(in.wait(t, count+len(want))[count:])
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		count += len(want)
		a.settled()
	}
	id := a.put("a.png").text("fileId")
	expect("upload", "file.created")
	a.put("a.png")
	expect("overwrite", "file-version.created")
	a.settings1(`{"webhooks":{"overwriteAlsoUpdates":true,"versionEventType":"file-version"}}`)
	a.put("a.png")
	expect("overwrite, also updates", "file-version.created", "file.updated")
	versionType := ""
	for _, d := range in.wait(t, count) {
		if data := d.object()["data"].(map[string]any); d.kind() == "file-version.created" {
			versionType = fmt.Sprint(data["type"])
		}
	}
	if versionType != "file-version" {
		t.Errorf("file-version.created carries type %s", versionType)
	}
	a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"description":"x"}`)
	expect("update", "file.updated")
	a.must(204, "DELETE", "/v1/files/"+id+"/versions/"+id, "")
	expect("version delete", "file-version.deleted")
	a.must(204, "POST", "/v1/files/move", `{"sourceFilePath":"/a.png","destinationPath":"/d"}`)
	expect("move", "file.updated")
	a.must(204, "POST", "/v1/files/copy", `{"sourceFilePath":"/d/a.png","destinationPath":"/e"}`)
	expect("copy", "file.created")
	a.must(204, "POST", "/v1/files/move", `{"sourceFilePath":"/e/a.png","destinationPath":"/d"}`)
	expect("move onto another", "file-version.created", "file.updated", "file.deleted")
	a.settings1(`{"webhooks":{"deleteEmitsVersionEvents":true}}`)
	a.must(204, "DELETE", "/v1/files/"+id, "")
	expect("delete", "file.deleted", "file-version.deleted", "file-version.deleted", "file-version.deleted")

	one, two := a.put("1.png", "folder", "f").text("fileId"), a.put("2.png", "folder", "f").text("fileId")
	expect("uploads", "file.created", "file.created")
	a.must(200, "POST", "/v1/files/addTags", `{"fileIds":["`+one+`","`+two+`"],"tags":["x"]}`)
	expect("bulk tags", "file.updated", "file.updated")
	a.settings1(`{"webhooks":{"bulkEvents":false}}`)
	a.must(200, "POST", "/v1/files/batch/deleteByFileIds", `{"fileIds":["`+one+`","`+two+`"]}`)
	a.settings1(`{"webhooks":{"enabled":false}}`)
	a.put("3.png")
	if s := a.settled(); s["sent"] != float64(count) {
		t.Errorf("bulk and disabled: %v sent, want %d", s["sent"], count)
	}
}

func TestWebhookRetries(t *testing.T) {
	in := newInbox(t, func(n int) int { return []int{500, 302, 204}[min(n, 2)] })
	a := hooked(t, in, `{"retrySchedule":["1ms","1s"]}`)
	id := a.put("a.png").text("fileId")
	got := in.wait(t, 3)
	if s := a.settled(); s["sent"] != 3.0 || s["failed"] != 2.0 || s["acked"] != 1.0 || s["retried"] != 2.0 {
		t.Errorf("stats: %v", s)
	}
	for _, d := range got[1:] {
		if string(d.body) != string(got[0].body) || d.header.Get("webhook-id") != got[0].header.Get("webhook-id") || d.fileID() != id {
			t.Errorf("a retry is another webhook: %s", d.body)
		}
	}
	// The third came a second later, so its signature is of another time.
	if got[2].header.Get("webhook-timestamp") == got[0].header.Get("webhook-timestamp") ||
		got[2].header.Get("x-ik-signature") == got[0].header.Get("x-ik-signature") {
		t.Error("a retry carries the old signature")
	}
}

func TestWebhookIsGivenUp(t *testing.T) {
	in := newInbox(t, func(int) int { return 503 })
	a := hooked(t, in, `{"retrySchedule":["1ms","1ms"]}`)
	a.put("a.png")
	if s := a.settled(); s["sent"] != 3.0 || s["givenUp"] != 1.0 || s["acked"] != 0.0 {
		t.Errorf("stats: %v", s)
	}
}

// TestWebhookTimeout: failed and it arrived anyway.
func TestWebhookTimeout(t *testing.T) {
	hold := make(chan struct{})
	in := newInbox(t, func(n int) int {
		if n == 0 {
			<-hold
		}
		return 200
	})
	// On a slow machine any attempt may take too long, before it has come or after: there
	// are enough of them.
	a := hooked(t, in, `{"retrySchedule":[`+strings.Repeat(`"1ms",`, 499)+`"1ms"],"timeout":"20ms"}`)
	a.put("a.png")
	got := in.wait(t, 2) // the second comes because the first, which is held, timed out
	close(hold)
	if string(got[0].body) != string(got[1].body) {
		t.Error("the retry is another webhook")
	}
	if s := a.settled(); s["failed"].(float64) < 1 || s["acked"] != 1.0 {
		t.Errorf("stats: %v", s)
	}
}

func TestWebhookDropAndDuplicate(t *testing.T) {
	in := newInbox(t, nil)
	a := hooked(t, in, `{"dropRate":0.5,"duplicateRate":0.5}`)
	a.settings1(`{"seed":7}`)
	run := func() (dropped, doubled, sent float64) {
		before := a.settled()
		for i := range 40 {
			a.put(fmt.Sprintf("%d.png", i))
		}
		after := a.settled()
		d := func(k string) float64 { return after[k].(float64) - before[k].(float64) }
		if d("sent") != 40-d("dropped")+d("duplicated") || d("acked") != d("sent") {
			t.Errorf("does not add up: %v", after)
		}
		return d("dropped"), d("duplicated"), d("sent")
	}
	d1, u1, s1 := run()
	if d1 < 8 || d1 > 32 || u1 < 2 {
		t.Errorf("%v dropped, %v doubled of 40", d1, u1)
	}
	a.settings1(`{"seed":7}`)
	if d2, u2, s2 := run(); d2 != d1 || u2 != u1 || s2 != s1 {
		t.Errorf("the same seed gave %v %v %v and then %v %v %v", d1, u1, s1, d2, u2, s2)
	}
	seen := map[string]int{}
	for _, d := range in.wait(t, int(2*s1)) {
		seen[d.header.Get("webhook-id")]++
	}
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	if twice != int(2*u1) {
		t.Errorf("%d came twice, want %v", twice, 2*u1)
	}
}

func TestWebhookOrder(t *testing.T) {
	order := func(settings string) []string {
		in := newInbox(t, nil)
		a := hooked(t, in, settings)
		id := a.put("a.png").text("fileId")
		for i := range 30 {
			a.must(200, "PATCH", "/v1/files/"+id+"/details", fmt.Sprintf(`{"description":"%02d"}`, i))
		}
		var got []string
		for _, d := range in.wait(t, 31)[1:] {
			got = append(got, fmt.Sprint(d.object()["data"].(map[string]any)["description"]))
		}
		a.settled()
		return got
	}
	if got := order(""); !slices.IsSorted(got) {
		t.Errorf("one file's webhooks overtook each other: %q", got)
	}
	if got := order(`{"reorder":true,"reorderWithin":"300ms"}`); slices.IsSorted(got) {
		t.Error("reorder kept the order")
	}
}

func TestWebhookDelay(t *testing.T) {
	in := newInbox(t, nil)
	a := hooked(t, in, `{"delay":"150ms"}`)
	begun := time.Now()
	a.put("a.png")
	in.wait(t, 1)
	if took := time.Since(begun); took < 150*time.Millisecond {
		t.Errorf("came after %v", took)
	}
	a.settled()
}

func TestSampleWebhooks(t *testing.T) {
	now := time.UnixMilli(1767323045678)
	for _, kind := range WebhookKinds() {
		b, err := SampleWebhook(kind, "6957360537b244ef54d60180", now)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Type, ID string
			Created  string `json:"created_at"`
			Data     map[string]any
			Request  map[string]any
		}
		if err := json.Unmarshal(b, &v); err != nil || v.Type != kind || len(v.ID) != 36 || v.Created != "2026-01-02T03:04:05.678Z" || len(v.Data) == 0 {
			t.Errorf("%s: %s %v", kind, b, err)
		}
		about := strings.HasPrefix(kind, "file") || strings.HasPrefix(kind, "upload.post") || kind == "upload.pre-transform.success"
		if has := v.Data["fileId"] == "6957360537b244ef54d60180"; has != about {
			t.Errorf("%s names a file: %v", kind, has)
		}
		if (v.Request != nil) == strings.HasPrefix(kind, "file") {
			t.Errorf("%s: request is %v", kind, v.Request)
		}
	}
	if _, err := SampleWebhook("file.exploded", "x", now); err == nil {
		t.Error("an unknown kind was made")
	}
}
