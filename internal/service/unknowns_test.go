package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestUnknowns: whatever is not documented about ImageKit is a switch of the emulator,
// and trueup is tried with it both ways: agreeing with our own emulator alone would
// only prove that we agree with ourselves. The journey has run with every default;
// here each switch is turned the other way.
func TestUnknowns(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	t.Run("SearchByIDIsRefused", in.sub(func(in *installation) {
		in.settings(map[string]any{"idSearch": false})
		defer in.settings(map[string]any{"idSearch": true})
		before := in.stats().Requests
		in.backlog("/nosearch", 120)
		after := in.stats().Requests
		if n := after["details"] - before["details"]; n < 120 {
			in.t.Errorf("%d look-ups by id for 120 files without a search, want at least 120", n)
		}
		if n := after["list"] - before["list"]; n > 20 {
			in.t.Errorf("%d searches although searching by id is refused, want a probe now and then", n)
		}
	}))

	t.Run("SearchTakesFewIDs", in.sub(func(in *installation) {
		in.settings(map[string]any{"idSearchMax": 7})
		defer in.settings(map[string]any{"idSearchMax": 500})
		in.backlog("/few", 120)
	}))

	t.Run("ListingLags", in.sub(func(in *installation) {
		in.settings(map[string]any{"listLag": "3s"})
		defer in.settings(map[string]any{"listLag": "0s"})
		for n := range 20 {
			id := in.uploadV2("ann", map[string]any{"folder": "/lag"}, n)
			in.report("ann", id)
		}
		in.settles(time.Minute)
		in.converges(time.Minute)
	}))

	t.Run("NewFilesAreInvisibleForAWhile", in.sub(func(in *installation) {
		in.settings(map[string]any{"visibilityDelay": "1.5s"})
		defer in.settings(map[string]any{"visibilityDelay": "0s"})
		id := in.uploadV2("ann", map[string]any{"folder": "/late"}, 30)
		in.outcomeIs("ann", in.report("ann", id), "verified")
		in.converges(time.Minute)
	}))

	t.Run("NoRateHeadersAndATightLimit", in.sub(func(in *installation) {
		in.settings(map[string]any{"rateHeaders": false, "idSearch": false, "rateLimit": map[string]any{"perSecond": 20, "burst": 5}})
		defer in.settings(map[string]any{"rateHeaders": true, "idSearch": true, "rateLimit": map[string]any{"perSecond": 40, "burst": 100}})
		before := in.stats().RateLimited
		in.backlog("/tight", 60)
		if in.stats().RateLimited == before {
			in.t.Error("the limit was never met: this proves nothing")
		}
	}))

	t.Run("NothingLeavesBeforeTheReset", in.sub(func(in *installation) {
		in.settings(map[string]any{"idSearch": false, "rateLimit": map[string]any{"perSecond": 10, "burst": 3}})
		defer in.settings(map[string]any{"idSearch": true, "rateLimit": map[string]any{"perSecond": 40, "burst": 100}})
		in.control("POST", "faults", map[string]any{"path": "/v1/files/*/details", "status": 429, "times": 2, "headers": map[string]string{"X-RateLimit-Limit": "10", "X-RateLimit-Interval": "1000", "X-RateLimit-Reset": "900"}})
		in.backlog("/reset", 40)
		in.obeyedResets(900 * time.Millisecond)
	}))

	t.Run("MoveChangesTheID", in.sub(func(in *installation) {
		in.settings(map[string]any{"moveChangesId": true})
		defer in.settings(map[string]any{"moveChangesId": false})
		id := in.uploadV2("ann", map[string]any{"folder": "/from", "fileName": "m.png", "useUniqueFileName": "false"}, 40)
		in.awaitRow(id)
		in.imagekit("POST", "/v1/folder", true, "application/json", strings.NewReader(`{"folderName":"to","parentFolderPath":"/"}`))
		in.imagekit("POST", "/v1/files/move", true, "application/json", strings.NewReader(`{"sourceFilePath":"/from/m.png","destinationPath":"/to"}`)).want(in.t, http.StatusNoContent)
		in.converges(time.Minute)
		in.goneRow(id)
		for _, r := range in.rows() {
			if r.Path == "/to/m.png" && r.User != "ann" {
				in.t.Errorf("the moved file belongs to %q: its ticket went along, want ann", r.User)
			}
		}
	}))

	for _, headers := range []string{"standard", "legacy"} {
		t.Run("OnlySignatures_"+headers, in.sub(func(in *installation) {
			in.settings(map[string]any{"webhooks": map[string]any{"signatureHeaders": headers}})
			defer in.settings(map[string]any{"webhooks": map[string]any{"signatureHeaders": "both"}})
			in.awaitRow(in.uploadServer(map[string]string{"folder": "/sig"}, 50))
		}))
	}

	t.Run("TheDecodedSecretSigns", in.sub(func(in *installation) {
		in.settings(map[string]any{"webhooks": map[string]any{"specKey": true, "signatureHeaders": "standard"}})
		defer in.settings(map[string]any{"webhooks": map[string]any{"specKey": false, "signatureHeaders": "both"}})
		in.awaitRow(in.uploadServer(map[string]string{"folder": "/sig"}, 51))
	}))

	t.Run("WebhooksComeTwiceLateAndOutOfOrder", in.sub(func(in *installation) {
		in.settings(map[string]any{"webhooks": map[string]any{"duplicateRate": 0.5, "reorder": true, "delay": "200ms"}})
		defer in.settings(map[string]any{"webhooks": map[string]any{"duplicateRate": 0, "reorder": false, "delay": "0s"}})
		var ids []string
		for n := range 15 {
			ids = append(ids, in.uploadServer(map[string]string{"folder": "/mess"}, n))
		}
		for i, id := range ids {
			in.patch(id, map[string]any{"tags": []string{fmt.Sprint("t", i)}})
			if i%3 == 0 {
				in.delete(id)
			}
		}
		in.converges(2 * time.Minute)
	}))

	t.Run("OverwriteTellsTwice", in.sub(func(in *installation) {
		in.settings(map[string]any{"webhooks": map[string]any{"overwriteAlsoUpdates": true, "versionEventType": "file-version"}})
		defer in.settings(map[string]any{"webhooks": map[string]any{"overwriteAlsoUpdates": false, "versionEventType": "file"}})
		for n := range 3 {
			in.uploadServer(map[string]string{"folder": "/over", "fileName": "o.png", "useUniqueFileName": "false"}, 60+n)
		}
		in.converges(time.Minute)
	}))

	t.Run("RestoreGoesBackInTime", in.sub(func(in *installation) {
		in.settings(map[string]any{"regressOnRestore": true})
		defer in.settings(map[string]any{"regressOnRestore": false})
		same := map[string]string{"folder": "/back", "fileName": "b.png", "useUniqueFileName": "false"}
		id := in.uploadServer(same, 70)
		first := in.awaitRow(id).VersionID
		in.uploadServer(same, 71)
		in.converges(time.Minute)
		in.imagekit("PUT", "/v1/files/"+id+"/versions/"+first+"/restore", true, "", nil).want(in.t, http.StatusOK)
		in.converges(time.Minute)
		in.settles(time.Minute)
	}))
	in.settles(time.Minute)
	in.converges(time.Minute)
	in.identity()
}

// backlog makes n files without webhooks, reports all of them in arrays, and waits
// until each has its row.
func (in *installation) backlog(folder string, n int) {
	in.t.Helper()
	known := in.rows()
	in.control("POST", "files/generate", map[string]any{"count": n, "folder": folder, "spread": "10m"})
	var reports []map[string]string
	for id := range in.library() {
		if _, ok := known[id]; !ok {
			reports = append(reports, map[string]string{"fileId": id})
		}
	}
	for len(reports) > 0 {
		part := reports[:min(100, len(reports))]
		in.call("ann", "POST", "/save-metadata", part).want(in.t, http.StatusAccepted)
		reports = reports[len(part):]
	}
	in.settles(2 * time.Minute)
	in.converges(2 * time.Minute)
}

// obeyedResets reads the emulator's log: after a planted 429 nothing of trueup's may
// have come before its reset, counted from when it was sent.
func (in *installation) obeyedResets(reset time.Duration) {
	in.t.Helper()
	type request struct {
		At     time.Time
		Path   string
		Status int
		Fault  int
		Took   string
	}
	var log struct{ Items []request }
	if err := json.Unmarshal(in.control("GET", "requests", nil).body, &log); err != nil {
		in.t.Fatal(err)
	}
	all := log.Items
	planted := 0
	for i, r := range all {
		if r.Status != http.StatusTooManyRequests || r.Fault == 0 {
			continue
		}
		planted++
		took, _ := time.ParseDuration(r.Took)
		for _, later := range all[i+1:] {
			// Requests that were under way when the 429 came are not judged.
			if gap := later.At.Sub(r.At.Add(took)); gap > 50*time.Millisecond && gap < reset-50*time.Millisecond && strings.HasSuffix(later.Path, "/details") {
				in.t.Errorf("%s came %v after a 429 that said %v", later.Path, gap, reset)
			}
		}
	}
	if planted == 0 {
		in.t.Error("no planted 429 in the log: this proves nothing")
	}
}
