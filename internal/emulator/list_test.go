package emulator

import (
	"bytes"
	"fmt"
	"image"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestListing(t *testing.T) {
	a, c, ids := shelf(t)
	for _, v := range []struct {
		query string
		want  []string
	}{
		{"", []string{"one.png", "two.png", "three.png", "Four_Seasons.png", "five.txt"}},
		{"sort=DESC_CREATED&limit=2", []string{"five.txt", "Four_Seasons.png"}},
		{"sort=DESC_CREATED&limit=2&skip=2", []string{"three.png", "two.png"}},
		{"skip=4", []string{"five.txt"}},
		{"skip=5", []string{}},
		{"sort=ASC_NAME", []string{"Four_Seasons.png", "five.txt", "one.png", "three.png", "two.png"}},
		{"sort=DESC_WIDTH&limit=2&skip=1", []string{"three.png", "two.png"}},
		{"sort=ASC_SIZE&limit=1", []string{"five.txt"}},
		{"path=/a/", []string{"one.png"}},
		{"path=a", []string{"one.png"}},
		{"path=/", []string{"Four_Seasons.png", "five.txt"}},
		{"fileType=non-image", []string{"five.txt"}},
		{"fileType=image&skip=3", []string{"Four_Seasons.png"}},
		{"name=two.png", []string{"two.png"}},
		{"tags=blue,red", []string{"one.png", "two.png"}},
		{"type=folder", []string{"a", "b", "ab"}},
		{"type=all&path=/a", []string{"one.png", "b"}},
		{"type=file-version", []string{}},
		{search(`type = "file"`, "&type=folder&sort=DESC_CREATED&limit=1"), []string{"five.txt"}},
		{search(`type = "file"`, "&path=/a/b"), []string{"two.png"}},
	} {
		if got := a.names(v.query); !slices.Equal(got, v.want) {
			t.Errorf("%s\n got %q\nwant %q", v.query, got, v.want)
		}
	}
	c.forward(time.Minute)
	a.must(200, "PATCH", "/v1/files/"+ids["one.png"]+"/details", `{"tags":["x"]}`)
	if got := a.names("sort=DESC_UPDATED&limit=1"); !slices.Equal(got, []string{"one.png"}) {
		t.Errorf("by update: %q", got)
	}
	if got := a.names(search(`type = "file" AND updatedAt >= "2026-01-02T12:01:00"`)); !slices.Equal(got, []string{"one.png"}) {
		t.Errorf("updated since: %q", got)
	}
	a.settings1(`{"skipCap":3}`)
	a.must(400, "GET", "/v1/files?skip=4", "")
}

func TestListLag(t *testing.T) {
	a, c, ids := shelf(t)
	a.settings1(`{"listLag":"10s"}`)
	a.must(204, "DELETE", "/v1/files/"+ids["one.png"], "")
	a.must(200, "PATCH", "/v1/files/"+ids["two.png"]+"/details", `{"tags":["new"]}`)
	a.put("six.png")
	byTag := search(`tags IN ["new"]`)
	old := []string{"one.png", "two.png", "three.png", "Four_Seasons.png", "five.txt"}
	for _, query := range []string{"", "sort=ASC_UPDATED", search(`type = "file"`), search(`type = "file" AND updatedAt > 2026-01-01`)} {
		if got := a.names(query); !slices.Equal(got, old) {
			t.Errorf("at once, %s: %q", query, got)
		}
	}
	if got := a.names(byTag); len(got) != 0 {
		t.Errorf("at once, by tag: %q", got)
	}
	if got := a.names(search(`id = "` + ids["one.png"] + `"`)); len(got) != 1 {
		t.Errorf("at once, by id: %q", got)
	}
	a.must(404, "GET", "/v1/files/"+ids["one.png"]+"/details", "")
	c.forward(11 * time.Second)
	if got := a.names(""); !slices.Equal(got, []string{"two.png", "three.png", "Four_Seasons.png", "five.txt", "six.png"}) {
		t.Errorf("later: %q", got)
	}
	if got := a.names(byTag); !slices.Equal(got, []string{"two.png"}) {
		t.Errorf("later, by tag: %q", got)
	}
}

func TestVisibilityDelay(t *testing.T) {
	a, c, _ := shelf(t)
	a.settings1(`{"visibilityDelay":"5s"}`)
	id := a.put("late.png").text("fileId")
	a.must(404, "GET", "/v1/files/"+id+"/details", "")
	c.forward(5 * time.Second)
	a.must(200, "GET", "/v1/files/"+id+"/details", "")
}

func TestGeneratedLibrary(t *testing.T) {
	a := quiet(t)
	begun := time.Now()
	g := a.must(200, "POST", "/_emulator/files/generate", `{"count":1000000,"folder":"/bulk"}`)
	made := time.Since(begun)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	t.Logf("1,000,000 files in %v, heap %d MiB", made, mem.HeapAlloc>>20)
	first, last := g.text("firstFileId"), g.text("lastFileId")

	d := a.must(200, "GET", "/v1/files/"+first+"/details", "").object()
	createdAt, err := time.Parse(time.RFC3339, fmt.Sprint(d["createdAt"]))
	if days := time.Since(createdAt).Hours() / 24; err != nil || days < 364.9 || days > 365.1 {
		t.Errorf("the first was created %v days ago (%v)", days, err)
	}
	req, _ := http.NewRequest(http.MethodGet, fmt.Sprint(d["url"]), nil)
	picture := a.send(req).body
	config, _, err := image.DecodeConfig(bytes.NewReader(picture))
	if err != nil || float64(config.Width) != d["width"] || float64(config.Height) != d["height"] || float64(len(picture)) != d["size"] {
		t.Errorf("%v delivers %d bytes, %+v (%v)", d, len(picture), config, err)
	}

	t.Run("PagesByTimeWithoutSkip", func(t *testing.T) {
		seen, from, begun := map[string]bool{}, "2000-01-01T00:00:00", time.Now()
		for range 20 {
			page := a.must(200, "GET", "/v1/files?limit=1000&sort=ASC_CREATED&"+search(`type = "file" AND createdAt >= "`+from+`"`), "").list()
			for _, f := range page {
				seen[fmt.Sprint(f["fileId"])] = true
			}
			from = fmt.Sprint(page[len(page)-1]["createdAt"])[:19]
		}
		t.Logf("20 pages in %v", time.Since(begun))
		// 31.5 s lie between two files, so pages overlap by the one at their seam.
		if want := 20*1000 - 19; len(seen) != want {
			t.Errorf("%d files seen, want %d", len(seen), want)
		}
	})
	t.Run("SortsByNameWithinBounds", func(t *testing.T) {
		begun := time.Now()
		page := a.must(200, "GET", "/v1/files?limit=2&sort=DESC_NAME", "").list()
		t.Logf("a sort of all in %v", time.Since(begun))
		if page[0]["name"] != "gen0_999999.png" || page[1]["name"] != "gen0_999998.png" {
			t.Errorf("%v, %v", page[0]["name"], page[1]["name"])
		}
	})
	t.Run("ChangesOneFile", func(t *testing.T) {
		a.must(204, "DELETE", "/v1/files/"+first, "")
		a.must(404, "GET", "/v1/files/"+first+"/details", "")
		a.must(200, "PATCH", "/v1/files/"+last+"/details", `{"tags":["x"]}`)
		if got := a.names(search(`tags IN ["x"]`)); !slices.Equal(got, []string{"gen0_999999.png"}) {
			t.Errorf("changed: %q", got)
		}
		if got := a.names("limit=1"); !slices.Equal(got, []string{"gen0_1.png"}) {
			t.Errorf("oldest: %q", got)
		}
		if got := a.names("limit=1&sort=DESC_CREATED"); !slices.Equal(got, []string{"gen0_999999.png"}) {
			t.Errorf("newest: %q", got)
		}
		if n := a.must(200, "GET", "/_emulator/stats", "").object()["library"].(map[string]any)["files"]; n != 999_999.0 {
			t.Errorf("%v files", n)
		}
	})
	t.Run("IsTooManyForAFolderOperation", func(t *testing.T) {
		a.must(400, "DELETE", "/v1/folder", `{"folderPath":"/bulk"}`)
	})
	t.Run("SurvivesARestart", func(t *testing.T) {
		dir := a.Dir
		a.stop()
		b := start(t, Config{Dir: dir})
		b.must(404, "GET", "/v1/files/"+first+"/details", "")
		if tags := fmt.Sprint(b.must(200, "GET", "/v1/files/"+last+"/details", "").object()["tags"]); tags != "[x]" {
			t.Errorf("tags after a restart: %s", tags)
		}
	})
}

// TestMergedOrder: generated files and uploads come in one order, either way.
func TestMergedOrder(t *testing.T) {
	a, c, _ := shelf(t) // five files, the last at 12:00:04
	a.must(204, "DELETE", "/v1/folder", `{"folderPath":"/a"}`)
	a.must(204, "DELETE", "/v1/folder", `{"folderPath":"/ab"}`)
	c.forward(time.Second)
	a.must(200, "POST", "/_emulator/files/generate", `{"count":3,"folder":"/g","spread":"4500ms"}`) // 12:00:01.5, :03, :04.5
	a.put("last.png")
	want := []string{"gen0_0.png", "Four_Seasons.png", "gen0_1.png", "five.txt", "gen0_2.png", "last.png"}
	for _, by := range []string{"CREATED", "UPDATED"} {
		up, down := a.names("sort=ASC_"+by), a.names("sort=DESC_"+by)
		slices.Reverse(down)
		slices.Sort(want[1:3]) // both at 12:00:03
		slices.Sort(up[1:3])
		slices.Sort(down[1:3])
		if !slices.Equal(up, want) || !slices.Equal(down, want) {
			t.Errorf("%s:\n up   %q\n down %q\n want %q", by, up, down, want)
		}
		if page := a.names("limit=2&skip=4&sort=DESC_" + by); len(page) != 2 || page[1] != "gen0_0.png" {
			t.Errorf("%s, the last page: %q", by, page)
		}
	}
}

// TestGeneratedIDs: every id names its file and no other, in each generation.
func TestGeneratedIDs(t *testing.T) {
	l := newLibrary()
	for n := range 3 {
		if err := l.generate(&generation{Number: n, Count: 1000, Folder: "/g", First: 1_700_000_000_000, Spread: int64(n) * 5}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, g := range l.generations {
		for i := range g.Count {
			id := g.id(i)
			if back, j := l.generated(id); back != g || j != i || seen[id] || !validID(id) {
				t.Fatalf("%s is generation %d's %d", id, g.Number, i)
			}
			if j, ok := g.index(join("/g", g.name(i))); !ok || j != i {
				t.Fatalf("%s is %d", g.name(i), j)
			}
			seen[id] = true
		}
		if lo := g.from(g.createdAt(500)); g.createdAt(lo) != g.createdAt(500) || lo > 0 && g.createdAt(lo-1) >= g.createdAt(500) {
			t.Errorf("generation %d: from gives %d", g.Number, lo)
		}
	}
}

func TestPlainPNG(t *testing.T) {
	for _, side := range [][2]int{{1, 1}, {64, 64}, {3, 50}} {
		b := plainPNG(side[0], side[1])
		if _, _, err := image.Decode(bytes.NewReader(b)); err != nil || int64(len(b)) != plainSize(side[0], side[1]) {
			t.Errorf("%v: %d bytes, want %d (%v)", side, len(b), plainSize(side[0], side[1]), err)
		}
	}
}
