package emulator

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// names lists the names of what a query finds.
func (a *account) names(query string) []string {
	a.t.Helper()
	out := []string{}
	for _, f := range a.must(200, "GET", "/v1/files?"+query, "").list() {
		out = append(out, fmt.Sprint(f["name"]))
	}
	return out
}

func search(q string, more ...string) string {
	return "searchQuery=" + url.QueryEscape(q) + strings.Join(more, "")
}

// clockwork is a clock that a test moves.
type clockwork struct {
	mu sync.Mutex
	at time.Time
}

func (c *clockwork) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clockwork) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// shelf is a small library: one.png … at 12:00:00, :01, … on 2026-01-02.
func shelf(t *testing.T) (*account, *clockwork, map[string]string) {
	t.Helper()
	c := &clockwork{at: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}
	a := start(t, Config{Now: c.now})
	a.settings1(`{"rateLimit":{"perSecond":0},"writeRateLimit":{"perSecond":0}}`)
	a.must(201, "POST", "/v1/customMetadataFields", `{"name":"price","label":"Price","schema":{"type":"Number"}}`)
	a.must(201, "POST", "/v1/customMetadataFields", `{"name":"brand","label":"Brand","schema":{"type":"Text"}}`)
	a.must(201, "POST", "/v1/customMetadataFields", `{"name":"sizes","label":"Sizes","schema":{"type":"MultiSelect","selectOptions":["S","M"]}}`)
	a.must(201, "POST", "/v1/customMetadataFields", `{"name":"sale","label":"Sale","schema":{"type":"Boolean"}}`)
	ids := map[string]string{}
	for _, f := range [][]string{
		{"one.png", "folder", "/a", "tags", "red,big sale"},
		{"two.png", "folder", "/a/b", "tags", "blue", "customMetadata", `{"price":10,"brand":"Acme","sizes":["S"],"sale":true}`},
		{"three.png", "folder", "/ab", "isPrivateFile", "true", "customMetadata", `{"price":20,"sale":false}`},
		{"Four Seasons.png"},
		{`five.txt`, "file", "aGVsbG8gd29ybGQ="},
	} {
		fields := map[string]string{"fileName": f[0], "useUniqueFileName": "false"}
		for i := 1; i < len(f); i += 2 {
			fields[f[i]] = f[i+1]
		}
		var bytes []byte
		if fields["file"] == "" {
			bytes = plainPNG(10*(1+len(ids)), 5)
		}
		r := a.post("v1", true, fields, bytes)
		if r.status != 200 {
			t.Fatalf("%s: %s", f[0], r.body)
		}
		ids[f[0]] = r.text("fileId")
		c.forward(time.Second)
	}
	return a, c, ids
}

func TestSearchGrammar(t *testing.T) {
	a, _, ids := shelf(t)
	all := []string{"one.png", "two.png", "three.png", "Four_Seasons.png", "five.txt"}
	for _, c := range []struct {
		query string
		want  []string
	}{
		{`type = "file"`, all},
		{`id = "` + ids["two.png"] + `"`, []string{"two.png"}},
		{`type = "file" AND id IN ["` + ids["five.txt"] + `","` + ids["one.png"] + `","598821f949c0a938d57563bd"]`, []string{"one.png", "five.txt"}},
		{`type = "file" AND id NOT IN ["` + ids["five.txt"] + `","` + ids["one.png"] + `"]`, all[1:4]},
		{`type = "file" AND id NOT = "` + ids["one.png"] + `"`, all[1:]},
		{`type = "folder"`, []string{"a", "b", "ab"}},
		{`type IN ["file","folder"] AND name = "a"`, []string{"a"}},
		{`name = "one.png"`, []string{"one.png"}},
		{`name = "ONE.png"`, []string{}},
		{`name : "t"`, []string{"two.png", "three.png"}},
		{`type = "file" AND name IN ["one.png", "five.txt"]`, []string{"one.png", "five.txt"}},
		{`name HAS "SEASONS fo"`, []string{"Four_Seasons.png"}},
		{`name HAS "four sea son"`, []string{}},
		{`name HAS "four seas"`, []string{"Four_Seasons.png"}},
		{`tags IN ["blue","green"]`, []string{"two.png"}},
		{`type = "file" AND tags NOT IN ["blue"]`, []string{"one.png", "three.png", "Four_Seasons.png", "five.txt"}},
		{`tags HAS "SALE"`, []string{"one.png"}},
		{`tags EXISTS`, []string{"one.png", "two.png"}},
		{`type = "file" AND tags NOT EXISTS`, all[2:]},
		{`path = "/a"`, []string{"one.png", "b"}},
		{`type = "file" AND path = "a/"`, []string{"one.png"}},
		{`type = "file" AND path : "/a/"`, []string{"one.png", "two.png"}},
		{`type = "file" AND path : "/"`, all},
		{`createdAt >= "2026-01-02T12:00:02" AND type = "file"`, all[2:]},
		{`type = "file" AND createdAt < 2026-01-02T12:00:02`, all[:2]},
		{`type = "file" AND createdAt > "2026-01-02T12:00:01.000Z" AND createdAt <= "2026-01-02T12:00:03"`, all[2:4]},
		{`type = "file" AND createdAt = "2026-01-02T12:00:01"`, all[1:2]},
		{`type = "file" AND createdAt > 2026-01-03`, []string{}},
		{`type = "file" AND createdAt > "1h"`, all},
		{`type = "file" AND createdAt < 1d`, []string{}},
		{`type = "file" AND updatedAt >= "2026-01-02T12:00:04"`, all[4:]},
		{`width > 20 AND height = 5`, []string{"three.png", "Four_Seasons.png"}},
		{`size < "1kb" AND format IN ["txt","jpg"]`, []string{"five.txt"}},
		{`type = "file" AND format = "png"`, all[:4]},
		{`private = true`, []string{"three.png"}},
		{`published = true AND private = false`, []string{"one.png", "two.png", "Four_Seasons.png", "five.txt"}},
		{`"customMetadata.price" >= 10`, []string{"two.png", "three.png"}},
		{`"customMetadata.price" EXISTS AND NOT "customMetadata.price" > 10`, []string{"two.png"}},
		{`"customMetadata.brand" : "Ac"`, []string{"two.png"}},
		{`"customMetadata.sizes" IN ["S"]`, []string{"two.png"}},
		{`"customMetadata.sale" = false`, []string{"three.png"}},
		{`name = "one.png" OR name = "two.png" AND path = "/nowhere"`, []string{"one.png"}},
		{`(name = "one.png" OR name = "two.png") AND path = "/a/b"`, []string{"two.png"}},
		{`NOT (name : "t" OR type = "folder") AND type = "file"`, []string{"one.png", "Four_Seasons.png", "five.txt"}},
		{`name = "say \"hi\" \\"`, []string{}},
	} {
		got := a.names(search(c.query))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s\n got %q\nwant %q", c.query, got, c.want)
		}
	}
	// Both ways of writing a space.
	if got := a.names("searchQuery=" + strings.ReplaceAll(url.PathEscape(`type = "file"`), "%3D", "=")); len(got) != 5 {
		t.Errorf("%%20 for a space: %q", got)
	}
}

func TestSearchRefusals(t *testing.T) {
	a, _, ids := shelf(t)
	for _, q := range []string{
		`type`, `type =`, `type = "file" AND`, `(type = "file"`, `type = "file")`, `type == "file"`, `type = file`, `type = "thing"`,
		`type = "file" and name = "x"`, `colour = "red"`, `name > "a"`, `name = "open`, `name IN "a"`, `name IN ["a"`, `name IN []`,
		`name IN ["a",]`, `createdAt > "soon"`, `createdAt > "1x"`, `width = "wide"`, `private = "true"`, `private = yes`, `tags = "x"`,
		`size > "5 parsecs"`, `customMetadata.price = 1`, `"customMetadata.nothing" = "x"`, `id HAS "x"`, `id : "x"`, `NOT`, `AND`,
		strings.Repeat("(", 60) + `type = "file"` + strings.Repeat(")", 60), `name = "x" "y"`, `tags EXISTS "x"`,
	} {
		if r := a.call("GET", "/v1/files?"+search(q), ""); r.status != 400 {
			t.Errorf("%s: %d %s", q, r.status, r.body)
		}
	}
	many := strings.Repeat(`"598821f949c0a938d57563bd",`, 20)
	byID := search(`id IN [` + many + `"` + ids["one.png"] + `"]`)
	if got := a.names(byID); len(got) != 1 {
		t.Errorf("21 ids: %q", got)
	}
	a.settings1(`{"idSearchMax":20}`)
	a.must(400, "GET", "/v1/files?"+byID, "")
	a.settings1(`{"idSearchMax":0,"urlMax":500}`)
	a.must(400, "GET", "/v1/files?"+byID, "")
	a.settings1(`{"urlMax":0,"idSearch":false}`)
	a.must(400, "GET", "/v1/files?"+byID, "")
	a.settings1(`{"idSearch":true,"searchDefaultType":"file"}`)
	if got := a.names(search(`path = "/a"`)); !slices.Equal(got, []string{"one.png"}) {
		t.Errorf("files by default: %q", got)
	}
}
