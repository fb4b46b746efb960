package service_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// grownTable is what an application has made of the guide's table: columns of its own,
// and some that trueup fills, too.
var grownTable = []string{"ALTER TABLE imagekit_files ADD COLUMN caption text, ADD COLUMN views int NOT NULL DEFAULT 7, ADD COLUMN file_name text, ADD COLUMN width int"}

// stocks puts a row of each file into the table, as the application has over the years:
// by several users, with the client's word for the url and its own clock for the upload.
func (g *guide) stocks(ids []string) {
	g.t.Helper()
	g.installation.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id, caption, views, file_name, width)
		SELECT id, 'https://client.said/' || id, 'user_' || n % 7, CASE WHEN n % 3 > 0 THEN 'caption ' || n END, n, CASE WHEN n % 2 = 0 THEN 'mine-' || n END, CASE WHEN n % 5 = 0 THEN 1 END
		FROM unnest($1::text[]) WITH ORDINALITY AS i(id, n)`, ids)
}

// fresh are the files with evidence of their owner that the first run comes upon: those
// with a ticket, by user, and those that their uploader reports while it is under way.
type fresh struct{ ticketed, reported map[string]string }

// uploadsFresh has files uploaded that no webhook tells of.
func (g *guide) uploadsFresh() fresh {
	g.t.Helper()
	f := fresh{map[string]string{}, map[string]string{}}
	for n := range 5 {
		user := fmt.Sprintf("proven_%d", n%2)
		f.ticketed[g.uploadV2(user, map[string]any{}, 700+n)] = user
	}
	for n := range 3 {
		f.reported[g.uploadV1("ann", nil, 800+n)] = "ann"
	}
	return f
}

// TestReconcileAdoptsAGuideTable: the first run over a table that an application of the
// guide has filled makes every row true and leaves each its owner, its id and its own
// columns, whoever claims the files meanwhile; the second run writes nothing.
func TestReconcileAdoptsAGuideTable(t *testing.T) {
	t.Parallel()
	g := startGuide(t, grownTable...)
	g.settings(map[string]any{"webhooks": map[string]any{"enabled": false}})
	g.control("POST", "files/generate", map[string]any{"count": 305, "folder": "/guide"})
	stock := slices.Sorted(maps.Keys(g.library()))
	g.stocks(stock)
	for n := range 5 {
		id := g.uploads(n, map[string]string{"tags": "own"})
		g.saves(id).want(t, http.StatusOK)
	}
	for _, id := range stock[300:] {
		g.delete(id)
	}
	before := g.whole()
	for _, id := range stock[300:] {
		delete(before, id)
	}
	g.migrates()
	g.serves()
	g.webhooks(false)
	g.control("POST", "files/generate", map[string]any{"count": 12, "folder": "/nobody"})
	files := g.uploadsFresh()
	first := g.claimedDuring(before, files)

	t.Run("EveryRowIsAdoptedAndTrue", g.sub(func(g *guide) {
		if err := g.differs(); err != nil {
			g.t.Error(err)
		}
		after := g.whole()
		for id := range after {
			if before[id] == nil {
				delete(after, id)
			}
		}
		keptIn(g.t, before, after, "id", "user_id", "caption", "views")
		// The five that eve claimed were adopted by that look-up; the run left them alone.
		if n := g.count(`SELECT count(*) FROM trueup.file_state WHERE owner_kind = 'adopted' AND owner = (SELECT user_id FROM imagekit_files f WHERE f.file_id = file_state.file_id)`); n != len(before) {
			g.t.Errorf("%d files are adopted, want %d", n, len(before))
		}
		if adopted := first.of("adopted", "repaired"); first.of("adopted", "") != adopted || adopted < int64(len(before)-10) {
			g.t.Errorf("the run says %+v", first.Found)
		}
	}))
	t.Run("FilesWithoutARowComeIn", g.sub(func(g *guide) {
		for id, user := range files.ticketed {
			if owner, kind := g.owner(id), g.ownerKind(id); owner != user || kind != "proven" {
				g.t.Errorf("%s belongs to %q (%s), want %s (proven)", id, owner, kind, user)
			}
		}
		for id, user := range files.reported {
			if owner, kind := g.owner(id), g.ownerKind(id); owner != user || kind != "claimed" {
				g.t.Errorf("%s belongs to %q (%s), want %s (claimed)", id, owner, kind, user)
			}
		}
		if n := g.count(`SELECT count(*) FROM imagekit_files WHERE user_id = ''`); n != 12 {
			g.t.Errorf("%d rows are nobody's, want 12", n)
		}
	}))
	t.Run("RowsWithoutAFileGo", g.sub(func(g *guide) {
		found := g.findings(first.ID)
		for _, id := range stock[300:] {
			if f := found[id]; f.Kind != "orphaned" || f.Status != "repaired" || countOf(f.Evidence, "ImageKit answered 404") != 2 {
				g.t.Errorf("%s: %+v, want it orphaned, and gone after two 404s", id, f)
			}
		}
	}))
	t.Run("WhyTellsOfTheAdoption", g.sub(func(g *guide) {
		id := stock[20]
		story := strings.Join(g.story(id), "\n")
		for _, part := range []string{"run " + first.ID + " found that there was a row that trueup had not looked at before", "the row's file_url said", `belongs to "user_0", who was in the row when trueup first saw it`} {
			if !strings.Contains(story, part) {
				g.t.Errorf("why %s does not say %q:\n%s", id, part, story)
			}
		}
	}))
	t.Run("TheSecondRunWritesNothing", g.sub(func(g *guide) {
		rows, states := g.rows(), g.count(`SELECT coalesce(sum(xmin::text::bigint), 0) FROM trueup.file_state`)
		r := g.wantRun(0, "complete", "run")
		if r.Same != int64(len(rows)) || r.of("adopted", "")+r.of("missing", "")+r.of("drifted", "")+r.of("orphaned", "") != 0 {
			g.t.Errorf("the second run says %+v", r)
		}
		g.unchanged(rows)
		if now := g.count(`SELECT coalesce(sum(xmin::text::bigint), 0) FROM trueup.file_state`); now != states {
			g.t.Error("the second run wrote to file_state")
		}
	}))
	t.Run("ARowThatTheApplicationAddsLaterIsAdoptedByTheNext", g.sub(func(g *guide) {
		id := g.uploads(60, nil)
		g.saves(id).want(g.t, http.StatusOK)
		r := g.wantRun(0, "complete", "run")
		if owner, kind := g.owner(id), g.ownerKind(id); r.of("adopted", "repaired") != 1 || owner != guideUser || kind != "adopted" {
			g.t.Errorf("%s belongs to %q (%s); the run says %+v", id, owner, kind, r)
		}
	}))
	g.settles(time.Minute)
	g.identity()
}

// claimedDuring makes the first run, and while it lists has eve claim what is others' and
// ann what she has uploaded.
func (g *guide) claimedDuring(before map[string]map[string]any, files fresh) reconciled {
	g.t.Helper()
	g.plantFault(map[string]any{"method": "GET", "path": "/v1/files", "latency": "3s", "times": 0})
	id := g.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(g.t, http.StatusOK).text(g.t, "id")
	testenv.Eventually(g.t, time.Minute, func() error {
		if g.showRun(id).Phase != "list" {
			return errors.New("it does not list yet")
		}
		return nil
	})
	var refused, accepted []string
	claim := func(ids []string) {
		for _, id := range ids {
			refused = append(refused, g.report("eve", id))
		}
	}
	others := slices.Sorted(maps.Keys(before))
	claim(others[:5])
	claim(slices.Sorted(maps.Keys(files.ticketed)))
	for _, id := range slices.Sorted(maps.Keys(files.reported)) {
		accepted = append(accepted, g.report("ann", id))
		refused = append(refused, g.report("eve", id))
	}
	g.healFaults()
	claim(others[100:105])
	r := g.awaitRun(id, time.Minute)
	if r.State != "complete" {
		g.t.Fatalf("the first run ended %+v", r)
	}
	claim(others[200:205])
	for _, report := range accepted {
		g.outcomeIs("ann", report, "verified")
	}
	for _, report := range refused {
		g.outcomeIs("eve", report, "rejected")
	}
	if n := g.count(`SELECT count(*) FROM imagekit_files WHERE user_id = 'eve'`); n != 0 {
		g.t.Errorf("%d rows are eve's", n)
	}
	return r
}

// keptIn fails unless every row of before is in after with the same value in each of the
// columns.
func keptIn(t testing.TB, before, after map[string]map[string]any, columns ...string) {
	t.Helper()
	if len(after) != len(before) {
		t.Errorf("%d of %d rows are left", len(after), len(before))
	}
	for id, was := range before {
		for _, name := range columns {
			if is := after[id][name]; is != was[name] {
				t.Errorf("%s of %s is %v, was %v", name, id, is, was[name])
			}
		}
	}
}

// countOf is how many of the texts contain part.
func countOf(texts []string, part string) (n int) {
	for _, s := range texts {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}
