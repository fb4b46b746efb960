package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// auditSides is a library and a table in memory.
type auditSides struct {
	Library
	dir   string
	files map[string]string // by id, the address
	rows  [][2]string       // id and address, in order

	lists, details int
	listFail       func(call int) error
	lookFail       func(id string) error
	rowsFail       map[string]error
}

func newAuditSides(t *testing.T, files int) *auditSides {
	a := &auditSides{dir: t.TempDir(), files: map[string]string{}, rowsFail: map[string]error{}}
	for i := range files {
		id := fmt.Sprintf("f%06d", i)
		a.files[id] = "https://ik/" + id
		a.rows = append(a.rows, [2]string{id, a.files[id]})
	}
	return a
}

func (a *auditSides) ListCreated(_ context.Context, from time.Time, skip int) (file.Answer, error) {
	if a.lists++; a.listFail != nil {
		if err := a.listFail(a.lists); err != nil {
			return file.Answer{}, err
		}
	}
	var out []file.Snapshot
	for id, address := range a.files {
		var n int
		_, _ = fmt.Sscanf(id, "f%d", &n)
		if at := knownSince.Add(time.Duration(n) * time.Minute); !at.Before(from) {
			out = append(out, file.Snapshot{ID: id, URL: address, CreatedAt: at, UpdatedAt: at})
		}
	}
	slices.SortFunc(out, func(x, y file.Snapshot) int { return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.ID, y.ID)) })
	out = out[min(skip, len(out)):]
	out = out[:min(len(out), 1000)]
	return file.Answer{Status: 200, Snapshots: out, Rows: len(out)}, nil
}

func (a *auditSides) Details(_ context.Context, id string) (file.Answer, error) {
	a.details++
	if a.lookFail != nil {
		if err := a.lookFail(id); err != nil {
			return file.Answer{}, err
		}
	}
	if _, there := a.files[id]; !there {
		return file.Answer{Status: 404}, &file.Fault{Kind: file.NotFound, Status: 404}
	}
	return file.Answer{Status: 200, Snapshots: []file.Snapshot{{ID: id}}}, nil
}

func hashOf(address string) int64 {
	h := fnv.New64()
	_, _ = h.Write([]byte(address))
	return int64(h.Sum64()) //nolint:gosec // any number will do
}

func (a *auditSides) Hash(_ context.Context, snapshots []*file.Snapshot) ([]int64, error) {
	out := make([]int64, len(snapshots))
	for i, s := range snapshots {
		out[i] = hashOf(s.URL)
	}
	return out, a.rowsFail["Hash"]
}

func (a *auditSides) Local(_ context.Context, yield func(run.Local) error) error {
	rows := slices.Clone(a.rows)
	slices.SortFunc(rows, func(x, y [2]string) int { return cmp.Compare(x[0], y[0]) })
	for _, r := range rows {
		if err := yield(run.Local{FileID: r[0], Live: true, Hash: hashOf(r[1])}); err != nil {
			return err
		}
	}
	return a.rowsFail["Local"]
}

func (a *auditSides) Differences(_ context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error) {
	out := map[string][]run.Difference{}
	for _, s := range snapshots {
		for _, r := range a.rows {
			if r[0] == s.ID && r[1] != s.URL {
				out[s.ID] = []run.Difference{{Column: "file_url", Row: &r[1], ImageKit: &s.URL}}
			}
		}
	}
	return out, a.rowsFail["Differences"]
}

func (a *auditSides) audit(t *testing.T, tune ...func(*AuditConfig)) (AuditReport, error) {
	t.Helper()
	c := AuditConfig{Library: a, Rows: a, TempDir: a.dir}
	for _, f := range tune {
		f(&c)
	}
	r, err := Audit(t.Context(), c)
	if left, _ := os.ReadDir(a.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return r, err
}

func auditFault(kind file.FaultKind) error {
	return &file.Fault{Kind: kind, Err: errAway}
}

func TestAuditCountsBothSides(t *testing.T) {
	a := newAuditSides(t, 3200)
	delete(a.files, "f000007")
	delete(a.files, "f002000")
	a.rows = slices.DeleteFunc(a.rows, func(r [2]string) bool { return r[0] == "f000001" || r[0] == "f003199" })
	a.rows[100][1] = "https://ik/other"
	for i := 200; i < 1300; i++ {
		a.rows[i][1] += "?updatedAt=1"
	}
	a.rows = append(a.rows, a.rows[5], [2]string{"", "x"}, [2]string{"a/b", "x"})
	r, err := a.audit(t)
	if err != nil || !r.Whole {
		t.Fatalf("%+v %v", r, err)
	}
	got := fmt.Sprint(r.Rows, r.Files, r.Deleted, r.NoRow, r.Differ, r.FormOnly, r.Same, r.Doubled, r.Nameless, r.Invalid)
	if want := "3201 3198 2 2 1 1100 2095 1 1 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if fmt.Sprint(r.Of.Deleted, r.Of.NoRow, r.Of.Doubled, r.Of.Invalid) != "[f000007 f002000] [f000001 f003199] [f000006] [a/b]" {
		t.Errorf("examples %+v", r.Of)
	}
	if want := []AuditColumn{{Column: "file_url", Rows: 1101, Form: 1100}}; !slices.Equal(r.Columns, want) {
		t.Errorf("columns %+v", r.Columns)
	}
}

// Far more rows than can be asked about: a fair sample, and its number.
func TestAuditAsksASample(t *testing.T) {
	a := newAuditSides(t, 10)
	for i := range 5000 {
		a.rows = append(a.rows, [2]string{fmt.Sprintf("g%06d", i), "x"})
	}
	r, err := a.audit(t, func(c *AuditConfig) { c.Sample = 50 })
	if err != nil || r.Deleted != 5000 || r.Unlisted != 5000 || r.Asked != 50 || r.Gone != 50 || !r.Sampled || a.details != 50 {
		t.Errorf("%+v %v", r, err)
	}
	if r.Of.Deleted[9] < "g000300" {
		t.Errorf("only the first are asked about: %v", r.Of.Deleted)
	}
}

// What gives no answer is not deleted.
func TestAuditOfFilesThatDoNotAnswer(t *testing.T) {
	for _, kind := range []file.FaultKind{file.Unavailable, file.Garbled, file.Forbidden, file.Limited} {
		t.Run(string(kind), func(t *testing.T) {
			a := newAuditSides(t, 100)
			delete(a.files, "f000003")
			delete(a.files, "f000004")
			a.lookFail = func(id string) error {
				if id == "f000003" {
					return auditFault(kind)
				}
				return nil
			}
			r, err := a.audit(t)
			if want := map[bool]int64{true: 1, false: 0}[kind != file.Forbidden]; err != nil || r.Gone != want || r.Unclear != 1 || len(r.Notes) == 0 {
				t.Errorf("%+v %v", r, err)
			}
			if kind != file.Forbidden && (r.Deleted != 1 || r.Sampled) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A fault of the moment is waited for, one that stays leaves the listing as far as it
// got, and without any listing nothing is judged.
func TestAuditOfAListingThatFails(t *testing.T) {
	failing := func(from, to int, kind file.FaultKind) func(int) error {
		return func(call int) error {
			if call >= from && call < to {
				return auditFault(kind)
			}
			return nil
		}
	}
	for name, tt := range map[string]struct {
		fail  func(int) error
		whole bool
		err   string
	}{
		"ForAMoment":             {failing(2, 5, file.Unreachable), true, ""},
		"ForAMomentAtTheStart":   {failing(1, 4, file.Unavailable), true, ""},
		"ForGood":                {failing(2, 1e9, file.Unreachable), false, ""},
		"ForGoodFromTheStart":    {failing(1, 1e9, file.Unreachable), false, "nothing could be listed"},
		"KeyRevokedInTheMiddle":  {failing(3, 1e9, file.Unauthorized), false, ""},
		"KeyRefused":             {failing(1, 1e9, file.Forbidden), false, "refuses the private key"},
		"QueryRefusedInBetween":  {failing(2, 1e9, file.BadRequest), false, ""},
		"QueryRefusedFromOutset": {failing(1, 1e9, file.BadRequest), false, "nothing could be listed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuditSides(t, 3000)
			a.rows = append(a.rows, [2]string{"gone", "x"})
			a.listFail = tt.fail
			synctest.Test(t, func(t *testing.T) {
				r, err := a.audit(t)
				switch {
				case tt.err != "":
					if err == nil || !strings.Contains(err.Error(), tt.err) || r.Rows != 0 {
						t.Errorf("%+v %v", r, err)
					}
				case err != nil || r.Whole != tt.whole || (r.Broken == "") != tt.whole:
					t.Errorf("%+v %v", r, err)
				case r.Deleted > 1 || r.Deleted != r.Gone:
					t.Errorf("%d rows are said to point at deleted files, %d are known to", r.Deleted, r.Gone)
				case tt.whole && (r.Deleted != 1 || r.Same != 3000):
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Every question to the database may fail: it comes out, and nothing is left behind.
func TestAuditOfATableThatFails(t *testing.T) {
	for _, method := range []string{"Hash", "Local", "Differences"} {
		t.Run(method, func(t *testing.T) {
			a := newAuditSides(t, 20)
			a.rows[3][1] = "other"
			a.rowsFail[method] = errAway
			if _, err := a.audit(t); !errors.Is(err, errAway) {
				t.Error(err)
			}
		})
	}
	t.Run("Interrupted", func(t *testing.T) {
		a := newAuditSides(t, 20)
		ctx, stop := context.WithCancel(t.Context())
		a.listFail = func(int) error { stop(); return ctx.Err() }
		if _, err := Audit(ctx, AuditConfig{Library: a, Rows: a, TempDir: a.dir}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if left, _ := os.ReadDir(a.dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestFormOnly(t *testing.T) {
	p := func(s string) *string { return &s }
	for name, tt := range map[string]struct {
		d    run.Difference
		want bool
	}{
		"OwnClock":         {run.Difference{Column: "upload_timestamp", Row: p("x"), ImageKit: p("y")}, true},
		"NoClock":          {run.Difference{Column: "upload_timestamp", ImageKit: p("y")}, true},
		"QueryBehind":      {run.Difference{Column: "file_url", Row: p("https://ik/a?updatedAt=1"), ImageKit: p("https://ik/a")}, true},
		"OtherAddress":     {run.Difference{Column: "file_url", Row: p("https://ik/b?updatedAt=1"), ImageKit: p("https://ik/a")}, false},
		"NoAddress":        {run.Difference{Column: "file_url", ImageKit: p("https://ik/a")}, false},
		"QueryOfAnother":   {run.Difference{Column: "thumbnail_url", Row: p("https://ik/a?x"), ImageKit: p("https://ik/a")}, false},
		"EmptyOtherColumn": {run.Difference{Column: "width", ImageKit: p("1")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := formOnly(tt.d); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if got := short(strings.Repeat("é", 201)); len([]rune(got)) != 201 {
		t.Errorf("%d characters", len([]rune(got)))
	}
}
