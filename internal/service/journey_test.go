package service_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestDevJourney is the journey against `trueup dev`: everything in one process.
func TestDevJourney(t *testing.T) {
	t.Parallel()
	journey(t, startDev(t, nil))
}

// journey is the main job, end to end, on any installation that has just been
// started. Its doubles: none; ImageKit is the emulator. Its oracle: truth_test.go.
// Never asserted here: how fast anything was.
func journey(t *testing.T, in *installation) {
	t.Run("ReportOfASignedUploadGivesTheRow", in.sub(func(in *installation) {
		id := in.uploadV2("ann", map[string]any{"folder": "/j", "tags": []string{"one", "two"}}, 1)
		in.outcomeIs("ann", in.report("ann", id), "verified")
		r := in.awaitRow(id)
		if r.User != "ann" || !slices.Equal(r.Tags, []string{"one", "two"}) {
			in.t.Errorf("row of %q with tags %v, want ann's with [one two] and no ticket", r.User, r.Tags)
		}
		in.converges(time.Minute)
		if kind := in.ownerKind(id); kind != "proven" {
			in.t.Errorf("owner is %q, want proven", kind)
		}
	}))

	t.Run("TheGuidesThreeStepsGiveTheRow", in.sub(func(in *installation) {
		in.webhooks(false)
		defer in.webhooks(true)
		id := in.uploadV1("bob", map[string]string{"folder": "/j"}, 2)
		in.outcomeIs("bob", in.report("bob", id), "verified")
		if owner, kind := in.owner(id), in.ownerKind(id); owner != "bob" || kind != "claimed" {
			in.t.Errorf("row belongs to %q (%s), want bob (claimed)", owner, kind)
		}
		in.converges(time.Minute)
	}))

	t.Run("WebhookAloneGivesTheRowAndTakesIt", in.sub(func(in *installation) {
		id := in.uploadServer(map[string]string{"folder": "/j"}, 3)
		if r := in.awaitRow(id); r.User != "" {
			in.t.Errorf("a server's upload belongs to %q, want nobody", r.User)
		}
		in.converges(time.Minute)
		in.delete(id)
		in.goneRow(id)
		if n := in.count("SELECT count(*) FROM trueup.file_state WHERE file_id=$1 AND gone_at IS NOT NULL", id); n != 1 {
			in.t.Errorf("%d tombstones, want 1", n)
		}
		if why := strings.Join(in.story(id), "\n"); !strings.Contains(why, "file.deleted") {
			in.t.Errorf("why does not tell of the deletion:\n%s", why)
		}
	}))

	t.Run("BothGiveOneRowAndOneStory", in.sub(func(in *installation) {
		id := in.uploadV2("ann", map[string]any{}, 4)
		for range 3 {
			in.outcomeIs("ann", in.report("ann", id), "verified")
		}
		testenv.Eventually(in.t, time.Minute, func() error {
			if n := in.count("SELECT count(*) FROM trueup.ledger WHERE file_id=$1 AND kind='file.created'", id); n != 1 {
				return fmt.Errorf("%d lines for the webhook, want 1", n)
			}
			return nil
		})
		if n := in.count("SELECT count(*) FROM public.imagekit_files WHERE file_id=$1", id); n != 1 {
			in.t.Errorf("%d rows, want 1", n)
		}
		if n := in.count("SELECT count(*) FROM trueup.ledger WHERE file_id=$1 AND kind='report'", id); n != 3 {
			in.t.Errorf("%d lines for the reports, want 3", n)
		}
		why := strings.Join(in.story(id), "\n")
		for _, part := range []string{"report", "file.created", "ann"} {
			if !strings.Contains(why, part) {
				in.t.Errorf("why does not mention %q:\n%s", part, why)
			}
		}
	}))

	t.Run("ChangesFollow", in.sub(func(in *installation) {
		id := in.uploadServer(map[string]string{"folder": "/j", "fileName": "moving.png", "useUniqueFileName": "false"}, 5)
		in.awaitRow(id)
		in.patch(id, map[string]any{"tags": []string{"later"}})
		in.converges(time.Minute)
		in.imagekit("PUT", "/v1/files/rename", true, "application/json", strings.NewReader(`{"filePath":"/j/moving.png","newFileName":"moved.png"}`)).want(in.t, http.StatusOK)
		in.converges(time.Minute)
		in.uploadServer(map[string]string{"folder": "/j", "fileName": "moved.png", "useUniqueFileName": "false"}, 6)
		in.converges(time.Minute)
	}))

	t.Run("AnothersFileTeachesAndChangesNothing", in.sub(func(in *installation) {
		id := in.uploadV2("ann", map[string]any{}, 7)
		in.outcomeIs("ann", in.report("ann", id), "verified")
		before := in.rows()[id]
		theirs, missing := in.call("eve", "POST", "/save-metadata", map[string]string{"fileId": id}), in.call("eve", "POST", "/save-metadata", map[string]string{"fileId": "0123456789abcdef01234567"})
		a := in.outcome("eve", theirs.want(in.t, http.StatusAccepted).text(in.t, "reportId"))
		b := in.outcome("eve", missing.want(in.t, http.StatusAccepted).text(in.t, "reportId"))
		if string(a.body) != string(b.body) || a.text(in.t, "state") != "rejected" || a.text(in.t, "reason") != "not_claimable" {
			in.t.Errorf("another's file ended as %s, a missing one as %s", a.body, b.body)
		}
		if after := in.rows()[id]; after.User != "ann" || after.XMin != before.XMin {
			in.t.Errorf("the row was touched: %+v, was %+v", after, before)
		}
		if status := in.call("eve", "GET", "/reports/"+in.report("ann", id), nil).status; status != http.StatusNotFound {
			in.t.Errorf("a foreign report id is answered %d, want 404", status)
		}
	}))

	t.Run("BadInputChangesNothing", in.sub(badInput))

	t.Run("RepeatsTouchNothing", in.sub(func(in *installation) {
		in.settles(time.Minute)
		before := in.rows()
		for id, r := range before {
			if r.User != "" {
				in.report(r.User, id)
			}
			in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q}`, id)).want(in.t, http.StatusOK)
		}
		in.settles(2 * time.Minute)
		after := in.rows()
		if len(after) != len(before) {
			in.t.Errorf("%d rows, were %d", len(after), len(before))
		}
		for id, r := range before {
			if after[id].XMin != r.XMin {
				in.t.Errorf("row %s was rewritten by a repeat", id)
			}
		}
		in.identity()
	}))
}

// sub runs f as a subtest with the installation reporting to it.
func (in *installation) sub(f func(*installation)) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		outer := in.t
		in.t = t
		defer func() { in.t = outer }()
		f(in)
	}
}

func (in *installation) outcomeIs(user, reportID, want string) {
	in.t.Helper()
	if a := in.outcome(user, reportID); a.text(in.t, "state") != want {
		in.t.Errorf("report of %s ended as %s, want %s", user, a.body, want)
	}
}

func (in *installation) ownerKind(fileID string) (kind string) {
	in.t.Helper()
	if err := in.db.QueryRow(in.t.Context(), "SELECT owner_kind FROM trueup.file_state WHERE file_id=$1", fileID).Scan(&kind); err != nil {
		in.t.Fatal(err)
	}
	return kind
}

func (in *installation) goneRow(fileID string) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if _, ok := in.rows()[fileID]; ok {
			return errors.New("the row of " + fileID + " is still there")
		}
		return nil
	})
}

// identity is I1 in a quiet moment: every event that the ledger, the retries and the
// dead letters know is in exactly one of them.
func (in *installation) identity() {
	in.t.Helper()
	if n := in.count(`SELECT count(*) FROM (SELECT event_id FROM trueup.retries UNION ALL SELECT id FROM trueup.ledger WHERE end_kind <> '' AND end_kind <> 'dead'
		UNION ALL SELECT event_id FROM trueup.dead_letters WHERE state IN ('dead','replaying')) e GROUP BY event_id HAVING count(*) > 1 UNION ALL SELECT 0 LIMIT 1`); n != 0 {
		in.t.Errorf("an event has %d ends", n)
	}
}
