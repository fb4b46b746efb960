package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestI16EverythingIsExplained: for every row, tombstone and rejection `why` tells the
// story in order and ends with why it is as it is now.
func TestI16EverythingIsExplained(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	proven := in.uploadV2("ann", map[string]any{}, 1)
	in.outcomeIs("ann", in.report("ann", proven), "verified")
	in.outcomeIs("eve", in.report("eve", proven), "rejected")
	claimed := in.uploadV1("bob", nil, 2)
	in.outcomeIs("bob", in.report("bob", claimed), "verified")
	unowned := in.uploadServer(nil, 3)
	in.awaitRow(unowned)
	deleted := in.uploadServer(nil, 4)
	in.awaitRow(deleted)
	in.delete(deleted)
	in.goneRow(deleted)
	missing := "0123456789abcdef01234567"
	in.outcomeIs("eve", in.report("eve", missing), "rejected")
	unheard := "fedcba9876543210fedcba98"
	assigned := in.uploadServer(nil, 5)
	in.awaitRow(assigned)
	must(t, in.env, "assign", assigned, "zoe", "--note", "ticket 4711")
	corrupted := in.uploadV2("ann", map[string]any{}, 6)
	in.outcomeIs("ann", in.report("ann", corrupted), "verified")
	in.exec("UPDATE public.imagekit_files SET file_name = 'wrong', user_id = 'eve' WHERE file_id = $1", corrupted)
	must(t, in.env, "recheck", corrupted, "--wait")
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}

	for _, c := range []struct {
		name, file string
		tells      []string // anywhere
		ends       string   // in the last line
	}{
		{"proven", proven, []string{"ann", "eve", "file.created"}, "ann"},
		{"claimed", claimed, []string{"bob", "report"}, "bob"},
		{"unowned", unowned, []string{"file.created"}, "nobody"},
		{"deleted", deleted, []string{"file.created", "file.deleted"}, "no row"},
		{"never there", missing, []string{"eve"}, "no row"},
		{"never heard of", unheard, nil, "never settled anything"},
		{"assigned", assigned, []string{"zoe", "ticket 4711"}, "zoe"},
		{"corrupted by hand", corrupted, []string{"recheck", "ann"}, "ann"},
	} {
		out, stderr, code := once(t, in.env, "why", c.file)
		if code != 0 {
			t.Errorf("why of the file that is %s: exit %d: %s", c.name, code, stderr)
			continue
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		for _, word := range c.tells {
			if !strings.Contains(out, word) {
				t.Errorf("why of the file that is %s does not mention %q:\n%s", c.name, word, out)
			}
		}
		if last := lines[len(lines)-1]; !strings.Contains(strings.ToLower(last), c.ends) {
			t.Errorf("why of the file that is %s ends with %q, which does not say %q", c.name, last, c.ends)
		}
	}
	in.everyRowHasItsStory()
}

// everyRowHasItsStory: nothing stands in the table, and nothing is remembered as gone,
// that the ledger does not tell of.
func (in *installation) everyRowHasItsStory() {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if n := in.count(`SELECT count(*) FROM (SELECT file_id FROM public.imagekit_files UNION SELECT file_id FROM trueup.file_state) f
			WHERE NOT EXISTS (SELECT FROM trueup.ledger l WHERE l.file_id = f.file_id)`); n != 0 {
			return fmt.Errorf("%d files without a line in the ledger", n)
		}
		return nil
	})
	for id := range in.rows() {
		if story := in.story(id); len(story) < 2 {
			in.t.Errorf("the story of %s has %d sentences", id, len(story))
		}
	}
	in.ops("GET", "/api/files/not%20an%20id", nil).want(in.t, http.StatusBadRequest)
}
