package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// The oracle: the rows against what ImageKit itself says, column by column, written
// without any of trueup's own code.

// row is what imagekit_files should hold of a file; user_id is checked apart.
type row struct {
	FileID, URL                       string
	Name, Path, Type, MIME, VersionID string
	Size                              int64
	Width, Height                     int64
	Tags                              []string
	Metadata                          map[string]any
	Private                           bool
	Uploaded, Updated                 time.Time
	User                              string // only in rows read from the table
	XMin                              string // likewise
}

// library is everything ImageKit holds, by fileId.
func (in *installation) library() map[string]row {
	in.t.Helper()
	files := map[string]row{}
	for skip := 0; ; skip += 1000 {
		q := url.Values{"limit": {"1000"}, "skip": {fmt.Sprint(skip)}, "type": {"file"}, "sort": {"ASC_CREATED"}}
		var page []map[string]any
		a := in.imagekit("GET", "/v1/files?"+q.Encode(), true, "", nil)
		if a.status == http.StatusTooManyRequests {
			skip -= 1000
			continue
		}
		if err := json.Unmarshal(a.want(in.t, http.StatusOK).body, &page); err != nil {
			in.t.Fatal(err)
		}
		for _, f := range page {
			r := projection(f)
			files[r.FileID] = r
		}
		if len(page) < 1000 {
			return files
		}
	}
}

func projection(f map[string]any) row {
	str := func(k string) string { s, _ := f[k].(string); return s }
	num := func(k string) int64 { n, _ := f[k].(float64); return int64(n) }
	when := func(k string) time.Time { t, _ := time.Parse(time.RFC3339Nano, str(k)); return t.UTC() }
	r := row{FileID: str("fileId"), Name: str("name"), Path: str("filePath"), Type: str("fileType"), MIME: str("mime"),
		Size: num("size"), Width: num("width"), Height: num("height"), Uploaded: when("createdAt"), Updated: when("updatedAt")}
	r.URL, _, _ = strings.Cut(str("url"), "?")
	r.Private, _ = f["isPrivateFile"].(bool)
	if v, ok := f["versionInfo"].(map[string]any); ok {
		r.VersionID, _ = v["id"].(string)
	}
	if tags, ok := f["tags"].([]any); ok {
		for _, t := range tags {
			if s, _ := t.(string); !strings.HasPrefix(s, "tu1.") {
				r.Tags = append(r.Tags, s)
			}
		}
	}
	if m, ok := f["customMetadata"].(map[string]any); ok && len(m) > 0 {
		r.Metadata = m
	}
	return r
}

// rows is the table, by fileId.
func (in *installation) rows() map[string]row {
	in.t.Helper()
	q, err := in.db.Query(context.Background(), `SELECT file_id, file_url, coalesce(file_name,''), coalesce(file_path,''), coalesce(file_type,''), coalesce(mime,''),
		coalesce(version_id,''), coalesce(size_bytes,0), coalesce(width,0), coalesce(height,0), tags, custom_metadata, coalesce(is_private,false),
		upload_timestamp, remote_updated_at, user_id, xmin::text FROM public.imagekit_files`)
	if err != nil {
		in.t.Fatal(err)
	}
	files := map[string]row{}
	all, err := pgx.CollectRows(q, func(c pgx.CollectableRow) (row, error) {
		var r row
		var uploaded, updated *time.Time
		err := c.Scan(&r.FileID, &r.URL, &r.Name, &r.Path, &r.Type, &r.MIME, &r.VersionID, &r.Size, &r.Width, &r.Height, &r.Tags, &r.Metadata, &r.Private, &uploaded, &updated, &r.User, &r.XMin)
		if uploaded != nil {
			r.Uploaded = uploaded.UTC()
		}
		if updated != nil {
			r.Updated = updated.UTC()
		}
		return r, err
	})
	if err != nil {
		in.t.Fatal(err)
	}
	for _, r := range all {
		files[r.FileID] = r
	}
	return files
}

// differs says how the table differs from the library; nil when it does not.
func (in *installation) differs() error {
	in.t.Helper()
	return differ(in.library(), in.rows())
}

// differ says how rows differ from what ImageKit holds.
func differ(want, have map[string]row) error {
	var wrong []string
	for id, w := range want {
		h, ok := have[id]
		h.User, h.XMin = "", ""
		switch {
		case !ok:
			wrong = append(wrong, "no row for "+id)
		case !reflect.DeepEqual(h, w):
			wrong = append(wrong, fmt.Sprintf("row %+v, want %+v", h, w))
		}
	}
	for id := range have {
		if _, ok := want[id]; !ok {
			wrong = append(wrong, "row for "+id+", which ImageKit does not have")
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("%d of %d files differ: %s", len(wrong), len(want), strings.Join(wrong[:min(5, len(wrong))], "; "))
}

// converges waits until the table equals the library in every column.
func (in *installation) converges(within time.Duration) {
	in.t.Helper()
	testenv.Eventually(in.t, within, in.differs)
}

// settles waits until nothing is under way: queue empty, no retry waiting.
func (in *installation) settles(within time.Duration) {
	in.t.Helper()
	testenv.Eventually(in.t, within, func() error {
		a := in.ops("GET", "/api/status", nil)
		if a.status != http.StatusOK {
			return fmt.Errorf("status: %d %s", a.status, a.body)
		}
		var s struct {
			Queue   struct{ Waiting, Unacked int }
			Retries *struct{ Count int }
		}
		if err := json.Unmarshal(a.body, &s); err != nil {
			return err
		}
		if s.Queue.Waiting+s.Queue.Unacked > 0 || s.Retries == nil || s.Retries.Count > 0 {
			return errors.New("not settled: " + string(a.body))
		}
		return nil
	})
}

// owner is the row's user_id; fails when there is no row.
func (in *installation) owner(fileID string) string {
	in.t.Helper()
	r, ok := in.rows()[fileID]
	if !ok {
		in.t.Fatalf("no row for %s", fileID)
	}
	return r.User
}

// awaitRow waits for a file's row and returns it.
func (in *installation) awaitRow(fileID string) (r row) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		var ok bool
		if r, ok = in.rows()[fileID]; !ok {
			return errors.New("no row for " + fileID)
		}
		return nil
	})
	return r
}

// count is one number by SQL.
func (in *installation) count(sql string, args ...any) (n int) {
	in.t.Helper()
	if err := in.db.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		in.t.Fatalf("%s: %v", sql, err)
	}
	return n
}
