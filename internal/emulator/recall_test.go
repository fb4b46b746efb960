package emulator

import (
	"fmt"
	"strings"
	"testing"
)

func items(t *testing.T, a *account, path string) (out []map[string]any) {
	t.Helper()
	for _, i := range a.must(200, "GET", path, "").object()["items"].([]any) {
		out = append(out, i.(map[string]any))
	}
	return out
}

func TestRecall(t *testing.T) {
	t.Run("KeepsTheLastLinesAndTheirNumbers", func(t *testing.T) {
		var r recall[int]
		for i := range recallLength + 5 {
			r.add(i + 1)
		}
		all, count := r.after(0)
		if len(all) != recallLength || count != recallLength+5 || all[0].n != 6 || all[0].line != 6 || all[recallLength-1].n != count {
			t.Fatalf("%d lines of %d, from %+v", len(all), count, all[0])
		}
		if late, _ := r.after(count - 2); len(late) != 2 || late[0].line != recallLength+4 {
			t.Fatalf("late: %+v", late)
		}
		if none, _ := r.after(count); len(none) != 0 {
			t.Fatalf("none: %+v", none)
		}
	})
}

func TestRequestsTellWhatWasSaid(t *testing.T) {
	a := quiet(t)
	id := a.put("a.png").text("fileId")
	a.fault(`{"path":"*/details","status":429,"headers":{"X-RateLimit-Reset":"1500"},"times":1}`)
	a.call("GET", "/v1/files/"+id+"/details", "")
	a.fault(`{"path":"*/details","status":404,"body":"<html>","times":1}`)
	a.call("GET", "/v1/files/"+id+"/details", "")
	a.fault(`{"path":"*/details","close":true,"times":1}`)
	a.fails("GET", "/v1/files/"+id+"/details", "")
	a.call("GET", "/v1/files/"+id+"/details", "")
	a.call("GET", "/v1/files", "")
	var got []string
	for _, l := range items(t, a, "/_emulator/requests?after=1") {
		got = append(got, fmt.Sprintln(l["n"], l["status"], l["reset"], l["body"], l["cut"]))
	}
	want := []string{"2 429 1500 object <nil>\n", "3 404 <nil> text <nil>\n", "4 200 <nil> object true\n", "5 200 <nil> object <nil>\n", "6 200 <nil> array <nil>\n"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestHistoryTellsWhatHappened(t *testing.T) {
	a := quiet(t)
	id := a.put("a.png").text("fileId")
	a.put("a.png")
	a.must(200, "PATCH", "/v1/files/"+id+"/details", `{"tags":["x"]}`)
	a.must(200, "PUT", "/v1/files/rename", `{"filePath":"/a.png","newFileName":"b.png"}`)
	a.must(204, "DELETE", "/v1/files/"+id, "")
	var kinds []string
	for _, l := range items(t, a, "/_emulator/history") {
		name := "-"
		if f, ok := l["file"].(map[string]any); ok {
			name = f["name"].(string)
		}
		kinds = append(kinds, l["kind"].(string)+" "+name)
		if l["fileId"] != id {
			t.Errorf("of %v", l["fileId"])
		}
	}
	want := []string{"uploaded a.png", "overwritten a.png", "edited a.png", "moved b.png", "deleted -"}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
}

func TestFilesShowsAllThatIs(t *testing.T) {
	a := quiet(t)
	a.must(200, "PATCH", "/_emulator/settings", `{"listLag":"1h","visibilityDelay":"1h"}`)
	id := a.put("a.png").text("fileId")
	a.must(200, "POST", "/_emulator/files/generate", `{"count":3,"folder":"/g"}`)
	lines := strings.Split(strings.TrimSpace(string(a.must(200, "GET", "/_emulator/files", "").body)), "\n")
	if len(lines) != 4 || !strings.Contains(lines[0], `"fileId":"`+id+`"`) {
		t.Errorf("%d lines: %.300q", len(lines), lines)
	}
}
