package walk

import (
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// TestChangesMeanwhile: the library grows and shrinks while it is read. What was there
// all along comes, and nothing that never was.
func TestChangesMeanwhile(t *testing.T) {
	tests := []struct {
		name    string
		library *library
		before  func(l *library, n int, q query)
		broken  bool
		notes   []string
	}{
		{"Uploads", spread(2500, year), func(l *library, n int, _ query) {
			if n < 20 {
				for i := range 100 {
					l.files = append(l.files, made(100_000+100*n+i, epoch.Add(year+time.Duration(n)*time.Second)))
				}
			}
		}, false, nil},
		{"UploadsDuringTheEnd", spread(10, year), func(l *library, n int, _ query) {
			if n > 0 && n < 20 {
				l.files = append(l.files, made(100_000+n, epoch.Add(year+time.Duration(n)*time.Second)))
			}
		}, false, nil},
		{"OldFilesAppearBehindTheWindow", spread(3500, year), func(l *library, n int, _ query) {
			if n == 2 {
				l.add(made(100_000, epoch.Add(time.Hour)), made(100_001, epoch.Add(2*time.Hour)))
			}
		}, false, nil},
		{"FilesAppearBeforeTheCursorInOneSecond", spread(5500, 0), func(l *library, n int, _ query) {
			if n == 3 {
				l.files = slices.Insert(l.files, 100, made(100_000, epoch), made(100_001, epoch))
			}
		}, false, []string{noteMoved}},
		{"FilesAreDeletedBehindTheWindow", spread(3500, year), func(l *library, n int, _ query) {
			if n == 2 {
				l.remove(func(i int, _ file.Snapshot) bool { return i < 700 })
			}
		}, false, nil},
		{"FewAreDeletedBeforeTheCursor", spread(5500, 0), func(l *library, n int, _ query) {
			if n == 3 {
				l.remove(func(i int, _ file.Snapshot) bool { return i >= 100 && i < 149 })
			}
		}, false, nil},
		{"ManyAreDeletedBeforeTheCursor", spread(5500, 0), func(l *library, n int, _ query) {
			if n == 3 {
				l.remove(func(i int, _ file.Snapshot) bool { return i >= 100 && i < 150 })
			}
		}, false, []string{noteShrank}},
		{"MoreThanAPageIsDeletedBeforeTheCursor", spread(9500, 0), func(l *library, n int, _ query) {
			if n == 6 {
				l.remove(func(i int, _ file.Snapshot) bool { return i < 2500 })
			}
		}, false, []string{noteShrank}},
		{"TheLastFileIsDeletedEachTime", spread(2500, year), func(l *library, n int, q query) {
			if !q.from.IsZero() && q.skip == 0 && n < 30 {
				l.remove(func(_ int, f file.Snapshot) bool { return f.CreatedAt.Unix() == q.from.Unix()+1 })
			}
		}, false, []string{noteShrank}},
		{"TheLastPageIsDeleted", spread(2500, year), func(l *library, n int, _ query) {
			if n == 2 {
				l.remove(func(i int, _ file.Snapshot) bool { return i >= 1000 && i < 1999 })
			}
		}, false, []string{noteShrank}},
		{"EverythingIsDeleted", spread(2500, year), func(l *library, n int, _ query) {
			if n == 2 {
				l.files = nil
			}
		}, true, []string{noteShrank}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.library
			stays, ever := set(idsOf(l.files)), set(idsOf(l.files))
			l.before = func(l *library, n int, q query) {
				tt.before(l, n, q)
				now := set(idsOf(l.files))
				for id := range now {
					ever[id] = true
				}
				for id := range stays {
					if !now[id] {
						delete(stays, id)
					}
				}
			}
			o := walked(t, l, 60)
			got := set(o.ids)
			for id := range got {
				if !ever[id] {
					t.Errorf("%s never was", id)
				}
			}
			for id := range stays {
				if !got[id] && !tt.broken {
					t.Fatalf("%s was there all along and did not come; notes %v", id, o.Notes())
				}
			}
			if (o.broken != nil) != tt.broken || o.Whole() == tt.broken || len(got) != len(o.ids) {
				t.Errorf("broken %v, whole %v, %d given out of %d, notes %v", o.broken, o.Whole(), len(o.ids), len(got), o.Notes())
			}
			for n := range o.Notes() {
				if !slices.Contains(tt.notes, n) {
					t.Errorf("noted %q", n)
				}
			}
			for _, n := range tt.notes {
				if o.Notes()[n] == 0 {
					t.Errorf("not noted: %q", n)
				}
			}
		})
	}
}

func idsOf(files []file.Snapshot) []string {
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = f.ID
	}
	return ids
}
