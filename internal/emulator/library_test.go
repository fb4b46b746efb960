package emulator

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestUploadForms(t *testing.T) {
	a := quiet(t)
	picture := plainPNG(9, 4)
	text := base64.StdEncoding.EncodeToString(picture)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(picture) }))
	defer origin.Close()
	for name, file := range map[string]string{"base64": text, "data-uri": "data:image/png;base64," + text, "url": origin.URL + "/x.png"} {
		r := a.post("v1", true, map[string]string{"fileName": name, "file": file}, nil)
		if r.status != 200 || r.object()["size"] != float64(len(picture)) || r.object()["width"] != 9.0 || r.text("fileType") != "image" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestUploadOptions(t *testing.T) {
	a := quiet(t)
	r := a.post("v1", true, map[string]string{
		"fileName": "für Elise?.png", "folder": "a//b c/", "tags": "x, y", "isPrivateFile": "true", "customCoordinates": "0,0,5,5",
		"responseFields": "tags,isPrivateFile,customCoordinates,customMetadata,metadata,isPublished,embeddedMetadata", "extensions": `[{"name":"google-auto-tagging","maxTags":5}]`,
	}, plainPNG(9, 4))
	got := fmt.Sprint(r.object()["tags"], r.object()["isPrivateFile"], r.object()["customCoordinates"], r.object()["customMetadata"], r.object()["isPublished"], r.object()["extensionStatus"])
	if got != "[x y] true0,0,5,5map[] true map[google-auto-tagging:pending]" || r.object()["metadata"].(map[string]any)["format"] != "png" {
		t.Errorf("responseFields: %s\n%s", got, r.body)
	}
	if p := r.text("filePath"); !strings.HasPrefix(p, "/a/b_c/für_Elise__") || len(p) != len("/a/b_c/für_Elise__123456789.png") {
		t.Errorf("filePath: %s", p)
	}
	if u := r.text("url"); !strings.HasPrefix(u, a.Endpoint()+"/a/b_c/f%C3%BCr_Elise__") || strings.Contains(u, "?") {
		t.Errorf("url: %s", u)
	}
	plain := a.post("v1", true, map[string]string{"fileName": "x.png"}, plainPNG(1, 1)).object()
	for _, absent := range []string{"tags", "updatedAt", "createdAt", "mime", "type", "customMetadata", "extensionStatus"} {
		if _, has := plain[absent]; has {
			t.Errorf("an upload answers %s", absent)
		}
	}
	d := a.must(200, "GET", "/v1/files/"+fmt.Sprint(plain["fileId"])+"/details", "")
	for _, null := range []string{`"tags":null`, `"AITags":null`, `"customCoordinates":null`, `"customMetadata":{}`, `"embeddedMetadata":null`} {
		if !strings.Contains(string(d.body), null) {
			t.Errorf("details without %s: %s", null, d.body)
		}
	}
}

func TestPreflightOfABrowser(t *testing.T) {
	a := quiet(t)
	for _, v := range []string{"v1", "v2"} {
		r := a.call("OPTIONS", "/api/"+v+"/files/upload", "")
		if r.status != 204 || r.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("%s: %d %v", v, r.status, r.header)
		}
	}
}

// details is what a file is, by id.
func (a *account) details(id string) map[string]any {
	a.t.Helper()
	return a.must(200, "GET", "/v1/files/"+id+"/details", "").object()
}

func TestOverwriteMakesAVersion(t *testing.T) {
	a, c, _ := shelf(t)
	first := a.put("v.png", "tags", "x", "customMetadata", `{"price":1}`)
	id := first.text("fileId")
	before := a.details(id)
	c.forward(time.Hour)
	second := a.put("v.png", "overwriteTags", "false")
	after := a.details(id)
	if second.text("fileId") != id || fmt.Sprint(after["versionInfo"]) == fmt.Sprint(before["versionInfo"]) {
		t.Fatalf("overwrite: %s then %s", first.body, second.body)
	}
	if after["createdAt"] != before["createdAt"] || after["updatedAt"].(string) <= before["updatedAt"].(string) {
		t.Errorf("times: %v then %v", before, after)
	}
	if fmt.Sprint(after["tags"], after["customMetadata"]) != "[x] map[]" {
		t.Errorf("kept: %v %v", after["tags"], after["customMetadata"])
	}
	versions := a.must(200, "GET", "/v1/files/"+id+"/versions", "").list()
	if len(versions) != 2 || versions[0]["type"] != "file" || versions[1]["type"] != "file-version" || versions[1]["fileId"] != id {
		t.Fatalf("versions: %v", versions)
	}
	if got := a.must(200, "GET", "/v1/files/"+id+"/versions/"+id, "").text("type"); got != "file-version" {
		t.Errorf("the first version is a %s", got)
	}
	if got := a.names(search(`type = "file-version"`)); len(got) != 1 || got[0] != "v.png" {
		t.Errorf("searched versions: %q", got)
	}

	c.forward(time.Hour)
	restored := a.must(200, "PUT", "/v1/files/"+id+"/versions/"+id+"/restore", "").object()
	if fmt.Sprint(restored["versionInfo"]) != "map[id:"+id+" name:Version 1]" || restored["updatedAt"].(string) <= after["updatedAt"].(string) {
		t.Errorf("restored: %v", restored)
	}
	a.settings1(`{"regressOnRestore":true}`)
	newer := after["versionInfo"].(map[string]any)["id"].(string)
	if back := a.must(200, "PUT", "/v1/files/"+id+"/versions/"+newer+"/restore", "").object(); back["updatedAt"] != after["updatedAt"] {
		t.Errorf("regressOnRestore: %v, want %v", back["updatedAt"], after["updatedAt"])
	}
	a.must(204, "DELETE", "/v1/files/"+id+"/versions/"+id, "")
	if third := a.put("v.png"); fmt.Sprint(third.object()["versionInfo"].(map[string]any)["name"]) != "Version 3" {
		t.Errorf("third: %s", third.body)
	}
}

func TestMove(t *testing.T) {
	for _, changesID := range []bool{false, true} {
		t.Run(fmt.Sprintf("moveChangesId=%v", changesID), func(t *testing.T) {
			a := quiet(t)
			a.settings1(fmt.Sprintf(`{"moveChangesId":%v}`, changesID))
			id := a.put("m.png", "tags", "t").text("fileId")
			before := a.details(id)
			a.must(204, "POST", "/v1/files/move", `{"sourceFilePath":"/m.png","destinationPath":"/to/here/"}`)
			a.must(200, "PUT", "/v1/files/rename", `{"filePath":"to/here/m.png","newFileName":"n.png"}`)
			found := a.must(200, "GET", "/v1/files?path=/to/here", "").list()
			if len(found) != 1 || found[0]["filePath"] != "/to/here/n.png" || fmt.Sprint(found[0]["tags"]) != "[t]" {
				t.Fatalf("found: %v", found)
			}
			if same := found[0]["fileId"] == id; same == changesID {
				t.Errorf("same fileId: %v", same)
			}
			if changesID {
				a.must(404, "GET", "/v1/files/"+id+"/details", "")
			} else if after := a.details(id); after["updatedAt"].(string) <= before["updatedAt"].(string) || after["createdAt"] != before["createdAt"] {
				t.Errorf("times: %v then %v", before, after)
			}
			req, _ := http.NewRequest(http.MethodGet, a.Endpoint()+"/m.png", nil)
			if r := a.send(req); r.status != 404 {
				t.Errorf("the old URL: %d", r.status)
			}
		})
	}
}

func TestCopyAndCollide(t *testing.T) {
	a := quiet(t)
	id := a.put("c.png", "tags", "t").text("fileId")
	a.must(204, "POST", "/v1/files/copy", `{"sourceFilePath":"/c.png","destinationPath":"/d"}`)
	copied := a.must(200, "GET", "/v1/files?path=/d", "").list()[0]
	if copied["fileId"] == id || fmt.Sprint(copied["versionInfo"]) != fmt.Sprintf("map[id:%v name:Version 1]", copied["fileId"]) {
		t.Errorf("copy: %v", copied)
	}
	a.must(204, "POST", "/v1/files/move", `{"sourceFilePath":"/c.png","destinationPath":"/d"}`)
	a.must(404, "GET", "/v1/files/"+id+"/details", "")
	if merged := a.details(fmt.Sprint(copied["fileId"])); fmt.Sprint(merged["versionInfo"].(map[string]any)["name"]) != "Version 2" {
		t.Errorf("merged: %v", merged)
	}
	a.settings1(`{"emptyBodyAs200":true}`)
	if r := a.must(200, "POST", "/v1/files/copy", `{"sourceFilePath":"/d/c.png","destinationPath":"/e","includeFileVersions":true}`); string(r.body) != "{}" {
		t.Errorf("empty: %s", r.body)
	}
	e := a.must(200, "GET", "/v1/files?path=/e", "").list()[0]
	if l := a.must(200, "GET", "/v1/files/"+fmt.Sprint(e["fileId"])+"/versions", "").list(); len(l) != 2 {
		t.Errorf("copied versions: %v", l)
	}
}

func TestFolders(t *testing.T) {
	a := quiet(t)
	id := a.put("x.png", "folder", "/p/q").text("fileId")
	a.put("x.png", "folder", "/z/q")
	a.must(201, "POST", "/v1/folder", `{"folderName":"empty","parentFolderPath":"/p/q"}`)
	job := a.must(200, "POST", "/v1/bulkJobs/moveFolder", `{"sourceFolderPath":"/p/q","destinationPath":"/z"}`).text("jobId")
	if r := a.must(200, "GET", "/v1/bulkJobs/"+job, ""); r.text("status") != "Completed" || r.text("type") != "MOVE_FOLDER" {
		t.Errorf("job: %s", r.body)
	}
	a.must(404, "GET", "/v1/files/"+id+"/details", "") // merged into the one that was there
	if got := fmt.Sprint(a.names(search(`type = "folder" AND path : "/"`, "&sort=ASC_NAME"))); got != "[empty p q z]" {
		t.Errorf("folders: %s", got)
	}
	a.must(202, "POST", "/v1/bulkJobs/renameFolder", `{"folderPath":"/z","newFolderName":"y"}`)
	a.must(409, "POST", "/v1/bulkJobs/renameFolder", `{"folderPath":"/y","newFolderName":"p"}`)
	a.must(200, "POST", "/v1/bulkJobs/copyFolder", `{"sourceFolderPath":"/y/q","destinationPath":"/w/v"}`)
	if got := a.names(search(`type = "file" AND path : "/w"`)); len(got) != 1 || a.names("path=/y/q")[0] != "x.png" {
		t.Errorf("copied: %q", got)
	}
	a.must(204, "DELETE", "/v1/folder", `{"folderPath":"/y/"}`)
	if got := a.names("type=all&path=/"); fmt.Sprint(got) != "[p w]" {
		t.Errorf("left: %q", got)
	}
}

func TestUpdate(t *testing.T) {
	a, _, ids := shelf(t)
	id := ids["two.png"]
	r := a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"tags":null,"customMetadata":{"price":null,"brand":"B"},"customCoordinates":"1,2,3,4","description":"d","extensions":[{"name":"remove-bg"}]}`).object()
	if got := fmt.Sprint(r["tags"], r["customMetadata"], r["customCoordinates"], r["description"], r["extensionStatus"]); got != "<nil> map[brand:B sale:true sizes:[S]]1,2,3,4dmap[remove-bg:pending]" {
		t.Errorf("update: %s", got)
	}
	// The clock stands still here, and yet each update is later than the last.
	last := a.details(id)["updatedAt"].(string)
	for range 3 {
		next := a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"publish":{"isPublished":false}}`).text("updatedAt")
		if next <= last {
			t.Errorf("updatedAt %s after %s", next, last)
		}
		last = next
	}
	req, _ := http.NewRequest(http.MethodGet, a.Endpoint()+"/a/b/two.png", nil)
	if r := a.send(req); r.status != 404 {
		t.Errorf("an unpublished file is delivered: %d", r.status)
	}
	a.must(400, "PATCH", "/v1/files/"+id+"/details", `{"customMetadata":{"price":"dear"}}`)
	a.must(400, "PATCH", "/v1/files/"+id+"/details", `{"tags":"x"}`)
	a.must(400, "PATCH", "/v1/files/"+id+"/details", `{"customCoordinates":"1,2"}`)
	a.settings1(`{"anyCustomMetadata":true}`)
	a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"customMetadata":{"anything":"goes"}}`)
}

func TestSettings(t *testing.T) {
	a := start(t, Config{})
	for _, bad := range []string{
		`{"nothing":1}`, `{"webhooks":{"nothing":1}}`, `{"listLag":5}`, `{"listLag":"-1s"}`, `{"webhooks":{"dropRate":2}}`, `[]`, `null`, `x`,
		`{"rateLimit":{"perSecond":-1}}`, `{"rateLimit":{"perSecond":5,"burst":0}}`, `{"webhooks":{"signatureHeaders":"none"}}`, `{"seed":-1}`,
	} {
		a.must(400, "PATCH", "/_emulator/settings", bad)
	}
	s := a.must(200, "PATCH", "/_emulator/settings", `{"webhooks":{"delay":"1.5s"},"listLag":"2m"}`).object()
	if w := s["webhooks"].(map[string]any); w["delay"] != "1.5s" || w["enabled"] != true || s["listLag"] != "2m0s" || s["idSearch"] != true {
		t.Errorf("settings: %v", s)
	}
	if fmt.Sprint(s["rateLimit"]) != "map[burst:100 perSecond:40]" {
		t.Errorf("defaults: %v", s["rateLimit"])
	}
	a.put("a.png")
	a.fault(`{"path":"*","status":500}`)
	a.must(204, "POST", "/_emulator/reset", "")
	s = a.must(200, "GET", "/_emulator/settings", "").object()
	if s["listLag"] != "0s" || len(a.names("")) != 0 {
		t.Errorf("after a reset: %v", s)
	}
	st := a.must(200, "GET", "/_emulator/stats", "").object()
	if fmt.Sprint(st["requests"], st["faults"]) != "map[list:1] 0" {
		t.Errorf("stats after a reset: %v", st)
	}
	log := a.must(200, "GET", "/_emulator/requests", "").object()["items"].([]any)
	if len(log) != 1 || log[0].(map[string]any)["path"] != "/v1/files" || log[0].(map[string]any)["status"] != 200.0 {
		t.Errorf("requests: %v", log)
	}
}
