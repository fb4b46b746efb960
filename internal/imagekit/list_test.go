package imagekit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// TestPageRequests: the exact lines that are sent, and what ImageKit reads in them.
func TestPageRequests(t *testing.T) {
	var got *http.Request
	c := client(t, func(w http.ResponseWriter, r *http.Request) { got = r; says(200, "["+sample+"]")(w, r) })
	const typed = "searchQuery=type%20%3D%20%22file%22"
	from := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	tests := []struct {
		name       string
		ask        func() (file.Answer, error)
		line       string
		expression string
	}{
		{"FromTheBeginning", func() (file.Answer, error) { return c.ListCreated(t.Context(), time.Time{}, 0) },
			"/v1/files?" + typed + "&sort=ASC_CREATED&limit=1000", `type = "file"`},
		{"FromASecond", func() (file.Answer, error) { return c.ListCreated(t.Context(), from, 0) },
			"/v1/files?" + typed + "%20AND%20createdAt%20%3E%3D%20%222026-01-02T03%3A04%3A05%22&sort=ASC_CREATED&limit=1000",
			`type = "file" AND createdAt >= "2026-01-02T03:04:05"`},
		{"FromAnotherZone", func() (file.Answer, error) {
			return c.ListCreated(t.Context(), from.In(time.FixedZone("IST", 19800)), 0)
		},
			"/v1/files?" + typed + "%20AND%20createdAt%20%3E%3D%20%222026-01-02T03%3A04%3A05%22&sort=ASC_CREATED&limit=1000",
			`type = "file" AND createdAt >= "2026-01-02T03:04:05"`},
		{"Skipping", func() (file.Answer, error) { return c.ListCreated(t.Context(), time.Time{}, 950) },
			"/v1/files?" + typed + "&sort=ASC_CREATED&limit=1000&skip=950", `type = "file"`},
		{"ByUpdate", func() (file.Answer, error) { return c.ListUpdated(t.Context(), from, 7) },
			"/v1/files?" + typed + "%20AND%20updatedAt%20%3E%3D%20%222026-01-02T03%3A04%3A05%22&sort=ASC_UPDATED&limit=1000&skip=7",
			`type = "file" AND updatedAt >= "2026-01-02T03:04:05"`},
		{"Newest", func() (file.Answer, error) { return c.Newest(t.Context()) },
			"/v1/files?type=file&sort=DESC_UPDATED&limit=1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer, err := tt.ask()
			if err != nil || len(answer.Snapshots) != 1 || answer.Rows != 1 {
				t.Fatalf("answer %+v, error %v", answer, err)
			}
			if got.RequestURI != tt.line {
				t.Errorf("asked  %s\nwanted %s", got.RequestURI, tt.line)
			}
			if q := got.URL.Query().Get("searchQuery"); q != tt.expression {
				t.Errorf("expression %s, want %s", q, tt.expression)
			}
		})
	}
}

// TestRowsOfAPage: each row is a file, a file that cannot be believed, something
// nameless that may be one, or none at all.
func TestRowsOfAPage(t *testing.T) {
	const stamps = `"url":"https://x/y","createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00Z"`
	rows := []struct{ row, read, unreadable, nameless string }{
		{`{"type":"file","fileId":"a",` + stamps + `}`, "a", "", ""},
		{`{"type":"file","fileId":"a",` + stamps + `}`, "a", "", ""}, // kept twice: the walk counts it
		{`{"type":"folder","folderId":"f1","name":"f"}`, "", "", ""},
		{`{"type":"folder","fileId":"f2","name":"f"}`, "", "", ""},
		{`{"type":"file-version","fileId":"v1",` + stamps + `}`, "", "", ""},
		{`{"type":"collection","collectionId":"c1"}`, "", "", ""},
		{`{"type":"hologram","fileId":"h1",` + stamps + `}`, "", "h1", ""},
		{`{"fileId":"t0",` + stamps + `}`, "", "t0", ""},
		{`{"type":7,"fileId":"t1",` + stamps + `}`, "", "t1", ""},
		{`{"type":null,"fileId":"t2",` + stamps + `}`, "", "t2", ""},
		{`{"type":"file","fileId":"u1","createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00Z"}`, "", "u1", ""},
		{`{"type":"file","fileId":"u2","url":"https://x/y","createdAt":"yesterday","updatedAt":"2026-01-01T00:00:00Z"}`, "", "u2", ""},
		{`{"type":"file","fileId":"u3","size":"big",` + stamps + `}`, "", "u3", ""},
		{`{"type":"file","fileId":"u4","tags":{},` + stamps + `}`, "", "u4", ""},
		{`{"type":"file","fileId":"../x",` + stamps + `}`, "", "", "n"},
		{`{"type":"file","fileId":7,` + stamps + `}`, "", "", "n"},
		{`{"type":"file",` + stamps + `}`, "", "", "n"},
		{`{}`, "", "", "n"},
		{`null`, "", "", "n"},
		{`7`, "", "", "n"},
		{`"a"`, "", "", "n"},
		{`[]`, "", "", "n"},
	}
	var body, read, unreadable []string
	nameless := 0
	for _, r := range rows {
		body = append(body, r.row)
		if r.read != "" {
			read = append(read, r.read)
		}
		if r.unreadable != "" {
			unreadable = append(unreadable, r.unreadable)
		}
		nameless += len(r.nameless)
	}
	answer, err := client(t, says(200, "["+strings.Join(body, ",")+"]")).ListCreated(t.Context(), time.Time{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range answer.Snapshots {
		got = append(got, s.ID)
	}
	if !slices.Equal(got, read) || !slices.Equal(answer.Unreadable, unreadable) || answer.Nameless != nameless || answer.Rows != len(rows) {
		t.Errorf("read %q, unreadable %q, %d nameless, %d rows\nwant %q, %q, %d, %d",
			got, answer.Unreadable, answer.Nameless, answer.Rows, read, unreadable, nameless, len(rows))
	}
}

// TestALargePage: 1,000 files with 20 kB of metadata each are one page; for a search
// that would be too much.
func TestALargePage(t *testing.T) {
	row := func(i int) string {
		return strings.Replace(strings.ReplaceAll(sample, id, fmt.Sprintf("%024d", i)), `"embeddedMetadata":null`,
			`"embeddedMetadata":{"XMP":"`+strings.Repeat("x", 20_000)+`"}`, 1)
	}
	rows := make([]string, 1000)
	for i := range rows {
		rows[i] = row(i)
	}
	c := client(t, says(200, "["+strings.Join(rows, ",")+"]"))
	answer, err := c.ListCreated(t.Context(), time.Time{}, 0)
	if err != nil || len(answer.Snapshots) != 1000 {
		t.Errorf("%d files, error %v", len(answer.Snapshots), err)
	}
	if _, err := c.Search(t.Context(), []string{id}); faultOf(t, err).Kind != file.Garbled {
		t.Errorf("a search took 20 MB: %v", err)
	}
}
