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

func TestRequests(t *testing.T) {
	var got *http.Request
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body := sample
		if r.URL.Path == "/pre/v1/files" {
			body = "[" + sample + "]"
		}
		says(200, body)(w, r)
	}, func(c *Config) { c.BaseURL += "/pre/"; c.UserAgent = "trueup/1" })

	t.Run("Details", func(t *testing.T) {
		if _, err := c.Details(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if got.Method != http.MethodGet || got.RequestURI != "/pre/v1/files/"+id+"/details" {
			t.Errorf("asked %s %s", got.Method, got.RequestURI)
		}
		// The vector of the reference: user is the key, the password is empty.
		if auth := got.Header.Get("Authorization"); auth != "Basic cHJpdmF0ZV9lbXVsYXRvcktleTAxMjM0NTY3ODlhYmNkZWY9Og==" {
			t.Errorf("Authorization %q", auth)
		}
		if got.UserAgent() != "trueup/1" || got.Header.Get("Content-Type") != "" {
			t.Errorf("headers %v", got.Header)
		}
	})
	t.Run("Search", func(t *testing.T) {
		answer, err := c.Search(t.Context(), []string{"abc", id})
		if err != nil || len(answer.Snapshots) != 1 {
			t.Fatalf("answer %+v, error %v", answer, err)
		}
		want := "/pre/v1/files?searchQuery=type%20%3D%20%22file%22%20AND%20id%20IN%20%5B%22abc%22%2C%22" + id + "%22%5D&limit=2"
		if got.RequestURI != want {
			t.Errorf("asked  %s\nwanted %s", got.RequestURI, want)
		}
		if q := got.URL.Query().Get("searchQuery"); q != `type = "file" AND id IN ["abc","`+id+`"]` {
			t.Errorf("expression %s", q)
		}
	})
	t.Run("SearchFor50LongIDsFitsAURL", func(t *testing.T) {
		ids := make([]string, 50)
		for i := range ids {
			ids[i] = fmt.Sprintf("%064d", i)
		}
		if _, err := c.Search(t.Context(), ids); err != nil {
			t.Error(err)
		}
	})
	t.Run("ListOne", func(t *testing.T) {
		answer, err := c.ListOne(t.Context())
		if err != nil || len(answer.Snapshots) != 1 || got.RequestURI != "/pre/v1/files?limit=1" {
			t.Errorf("asked %s, answer %+v, error %v", got.RequestURI, answer, err)
		}
	})
}

func TestNeverAsked(t *testing.T) {
	c := client(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	for _, bad := range []string{"", "a/b", "../x", "a b", `a"]`, "ä", "a\x00", strings.Repeat("a", 65)} {
		_, err := c.Details(t.Context(), bad)
		if fault := faultOf(t, err); fault.Kind != file.InvalidID || !fault.Absent() {
			t.Errorf("%q: fault %v", bad, fault)
		}
		_, err = c.Search(t.Context(), []string{id, bad})
		if fault := faultOf(t, err); fault.Kind != file.BadRequest {
			t.Errorf("%q: fault %v", bad, fault)
		}
	}
	if answer, err := c.Search(t.Context(), nil); err != nil || len(answer.Snapshots) != 0 {
		t.Errorf("answer %+v, error %v", answer, err)
	}
	many := slices.Repeat([]string{strings.Repeat("a", 64)}, 200)
	_, err := c.Search(t.Context(), many)
	if fault := faultOf(t, err); fault.Kind != file.BadRequest {
		t.Errorf("fault %v, want the URL's length refused", fault)
	}
}

func TestSearchKeepsOnlyWhatWasAskedFor(t *testing.T) {
	row := func(id, kind, updated string) string {
		return fmt.Sprintf(`{"type":%q,"fileId":%q,"url":"https://x/y","createdAt":"2026-01-01T00:00:00Z","updatedAt":%q}`, kind, id, updated)
	}
	body := "[" + strings.Join([]string{
		row("a", "file", "2026-01-02T00:00:00Z"),
		row("a", "file", "2026-01-03T00:00:00Z"),
		row("a", "file", "2026-01-01T00:00:00Z"),
		row("stranger", "file", "2026-01-02T00:00:00Z"),
		row("b", "file-version", "2026-01-02T00:00:00Z"),
		row("c", "file", "yesterday"),
		`{"type":"folder","folderId":"d","name":"d"}`,
		`null`, `7`, `{"type":"file","fileId":7}`,
		row("e", "file", "2026-01-02T00:00:00Z"),
	}, ",") + "]"
	answer, err := client(t, says(200, body)).Search(t.Context(), []string{"a", "b", "c", "d", "e"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range answer.Snapshots {
		got = append(got, s.ID+" "+s.UpdatedAt.Format(time.DateOnly))
	}
	if want := []string{"a 2026-01-03", "e 2026-01-02"}; !slices.Equal(got, want) {
		t.Errorf("hits %v, want %v", got, want)
	}
}

func TestProbeIDSearch(t *testing.T) {
	tests := []struct {
		name      string
		answer    http.HandlerFunc
		supported bool
		failed    bool
	}{
		{"Understood", says(200, "["+sample+"]"), true, false},
		{"UnderstoodAndLagging", says(200, "[]"), true, false},
		{"Refused", says(400, `{"message":"x"}`), false, false},
		{"TooLong", says(414, ""), false, false},
		{"Forbidden", says(403, `{}`), false, true},
		{"Down", says(503, ``), false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, known := range []string{id, "", "not an id"} {
				supported, err := client(t, tt.answer).ProbeIDSearch(t.Context(), known)
				if supported != tt.supported || (err != nil) != tt.failed {
					t.Errorf("known %q: %v, %v", known, supported, err)
				}
			}
		})
	}
}
