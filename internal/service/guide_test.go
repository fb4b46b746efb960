package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/testenv"
)

// guideTable is the table as the Neon guide creates it.
const guideTable = `CREATE TABLE IF NOT EXISTS imagekit_files (
	id SERIAL PRIMARY KEY,
	file_id TEXT NOT NULL UNIQUE,
	file_url TEXT NOT NULL,
	user_id TEXT NOT NULL,
	upload_timestamp TIMESTAMPTZ DEFAULT NOW()
)`

// guideUser is whom the guide's sign-in placeholder takes everybody for.
const guideUser = "user_123"

// guide is an application that was built by the Neon guide: its table, its server as a
// process of its own, ImageKit. trueup comes beside it with migrates and serves.
type guide struct {
	*installation
	url    string
	server *script
}

// startGuide makes the table, with whatever else ddl says, and starts the server.
func startGuide(t testing.TB, ddl ...string) *guide {
	t.Helper()
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(t)) }
	imagekit, public, ops := at(), at(), at()
	g := &guide{installation: &installation{t: t}}
	g.env = map[string]string{
		"DATABASE_URL": testenv.Postgres(t), "TRUEUP_ADDR": public, "TRUEUP_OPS_ADDR": ops, "TRUEUP_DATA_DIR": testenv.Dir(t),
		"TRUEUP_URL": "http://" + public, "TRUEUP_OPS_URL": "http://" + ops, "TRUEUP_OPS_TOKEN": "guide-operator-token",
		"IMAGE_KIT_BASE_URL": "http://" + imagekit, "IMAGEKIT_URL_ENDPOINT": "http://" + imagekit + "/demo_id",
		"IMAGEKIT_PUBLIC_KEY": "public_guide", "IMAGEKIT_PRIVATE_KEY": "private_guide0123456789abcdef", "IMAGEKIT_WEBHOOK_SECRET": "whsec_Z3VpZGUtZ3VpZGUtZ3VpZGU=",
		"TRUEUP_JWT_SECRET": strings.Repeat("guide-secret-", 4), "TRUEUP_JWT_ISSUER": "guide", "TRUEUP_JWT_AUDIENCE": "trueup",
		"TRUEUP_NOT_FOUND_GRACE": "3s", "TRUEUP_ABSENT_CONFIRM": "1s",
		"TRUEUP_POLL_EVERY": "0", "TRUEUP_RECONCILE_EVERY": "0", // nothing but hints, unless a test asks for a run
	}
	db, err := pgxpool.New(context.Background(), g.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	g.db = db
	g.exec(append([]string{guideTable}, ddl...)...)

	emulator := maps.Clone(g.env)
	emulator["TRUEUP_EMULATOR_ADDR"], emulator["TRUEUP_DATA_DIR"] = imagekit, testenv.Dir(t)
	start(t, emulator, "emulator")
	port := testenv.Freeport(t)
	g.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	g.server = startScript(t, map[string]string{"PORT": strconv.Itoa(port), "DATABASE_URL": g.env["DATABASE_URL"], "IMAGEKIT_PRIVATE_KEY": g.env["IMAGEKIT_PRIVATE_KEY"]},
		false, "guide.mjs", "--import", "./follow.mjs")
	g.answers(g.env["IMAGE_KIT_BASE_URL"]+"/_emulator/settings", g.url+"/generate-auth-params")
	g.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}, "writeRateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	return g
}

func (g *guide) exec(statements ...string) {
	g.t.Helper()
	for _, sql := range statements {
		if _, err := g.db.Exec(context.Background(), sql); err != nil {
			g.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// migrates runs `trueup migrate up` and returns everything it said.
func (g *guide) migrates(flags ...string) string {
	g.t.Helper()
	stdout, stderr, code := once(g.t, g.env, append([]string{"migrate", "up"}, flags...)...)
	if code != 0 {
		g.t.Fatalf("migrate up %v: exit %d\n%s%s", flags, code, stdout, stderr)
	}
	return stdout + stderr
}

// serves starts `trueup serve` beside the guide's server, with ImageKit's webhooks.
func (g *guide) serves() {
	g.t.Helper()
	g.dev = start(g.t, g.env, "serve")
	g.answers(g.env["TRUEUP_URL"] + "/readyz")
	g.connect()
	g.settings(map[string]any{"webhooks": map[string]any{"enabled": true, "url": g.env["TRUEUP_URL"] + "/webhooks/imagekit"}})
}

// uploads as the guide's browser does: parameters from the guide's server, then
// straight to ImageKit.
func (g *guide) uploads(n int, more map[string]string) (fileID string) {
	g.t.Helper()
	a := g.asks("GET", "/generate-auth-params", nil).want(g.t, http.StatusOK)
	expire, _ := a.get(g.t, "expire").(float64)
	fields := map[string]string{"fileName": fmt.Sprintf("guide-%d.png", n), "publicKey": g.env["IMAGEKIT_PUBLIC_KEY"],
		"token": a.text(g.t, "token"), "signature": a.text(g.t, "signature"), "expire": strconv.FormatInt(int64(expire), 10)}
	maps.Copy(fields, more)
	ct, body := form(g.t, fields, "x.png", picture(n))
	return g.imagekit("POST", "/api/v1/files/upload", false, ct, body).want(g.t, http.StatusOK).text(g.t, "fileId")
}

// saves has the guide's server insert the row. The url is the client's word, and so
// not what may stand in the table in the end.
func (g *guide) saves(fileID string) answer {
	g.t.Helper()
	return g.asks("POST", "/save-metadata", map[string]string{"fileId": fileID, "url": "https://client.said/" + fileID})
}

// asks the guide's server; a connection that fails is status 0.
func (g *guide) asks(method, path string, body any) answer {
	var payload io.Reader
	if body != nil {
		raw, _ := json.Marshal(body)
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequest(method, g.url+path, payload)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	r.Header.Set("Content-Type", "application/json")
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := plain.Do(r)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: raw}
}

// whole is every row with every column, whatever the columns are.
func (g *guide) whole() map[string]map[string]any {
	g.t.Helper()
	q, err := g.db.Query(context.Background(), "SELECT file_id, to_jsonb(f) FROM imagekit_files f")
	if err != nil {
		g.t.Fatal(err)
	}
	var id string
	var columns map[string]any
	rows := map[string]map[string]any{}
	if _, err := pgx.ForEachRow(q, []any{&id, &columns}, func() error {
		rows[id], columns = columns, nil
		return nil
	}); err != nil {
		g.t.Fatal(err)
	}
	return rows
}

// kept fails unless every row of before is still there with the same value in each of
// the columns; none named means all that it had.
func (g *guide) kept(before map[string]map[string]any, columns ...string) {
	g.t.Helper()
	after := g.whole()
	if len(after) != len(before) {
		g.t.Errorf("%d rows, were %d", len(after), len(before))
	}
	for id, was := range before {
		names := columns
		if len(names) == 0 {
			names = slices.Sorted(maps.Keys(was))
		}
		for _, name := range names {
			if is, there := after[id][name]; !there || !reflect.DeepEqual(is, was[name]) {
				g.t.Errorf("%s of %s is %v, was %v", name, id, is, was[name])
			}
		}
	}
}

// sub runs f as a subtest, with whatever it asks reporting to it.
func (g *guide) sub(f func(*guide)) func(*testing.T) {
	return g.installation.sub(func(*installation) { f(g) })
}

// TestGuideTableIsAdopted: a guide table that has grown columns and rows survives
// migrate unchanged; then each row is hinted at once and becomes true, with its owner,
// its id and the application's own columns as they were.
func TestGuideTableIsAdopted(t *testing.T) {
	t.Parallel()
	g := startGuide(t, "ALTER TABLE imagekit_files ADD COLUMN caption text, ADD COLUMN views int NOT NULL DEFAULT 7, ADD COLUMN tags jsonb")
	var ids []string
	for n := range 12 {
		id := g.uploads(n, map[string]string{"tags": "imagekits,own"})
		g.saves(id).want(t, http.StatusOK)
		ids = append(ids, id)
	}
	g.exec("UPDATE imagekit_files SET caption = 'caption of ' || file_id, tags = jsonb_build_array('app', file_id) WHERE id % 3 > 0",
		"UPDATE imagekit_files SET views = 100 + id WHERE id % 2 = 0")
	before := g.whole()

	t.Run("MigrateKeepsEveryRowAndColumn", g.sub(func(g *guide) {
		if said := g.migrates(); !strings.Contains(said, "column tags (jsonb) is left alone") || !strings.Contains(said, "own columns are left alone: caption, views") {
			g.t.Errorf("migrate up does not name the column it leaves alone:\n%s", said)
		}
		if said := must(g.t, g.env, "migrate", "status"); !strings.Contains(said, "left to the application: caption, views") {
			g.t.Errorf("migrate status does not name the application's columns:\n%s", said)
		}
		g.kept(before)
		again := g.whole()
		g.migrates()
		g.kept(again)
	}))

	g.serves()
	t.Run("AHintMakesEachRowTrueAndKeepsItsOwner", g.sub(func(g *guide) {
		refused := map[string]bool{}
		for i, id := range ids {
			if i%2 == 0 {
				g.webhook("file.updated", fmt.Sprintf(`{"fileId":%q}`, id)).want(g.t, http.StatusOK)
			} else {
				refused[g.report("eve", id)] = true
			}
		}
		for report := range refused {
			g.outcomeIs("eve", report, "rejected")
		}
		g.trueButTags(before)
		g.kept(before, "id", "user_id", "caption", "views", "tags")
		for _, id := range ids {
			if owner, kind := g.owner(id), g.ownerKind(id); owner != guideUser || kind != "adopted" {
				g.t.Errorf("%s belongs to %q (%s), want %s (adopted)", id, owner, kind, guideUser)
			}
		}
	}))

	t.Run("ANewFileGetsItsRowWithTheirDefaults", g.sub(func(g *guide) {
		id := g.uploads(20, nil)
		g.awaitRow(id)
		if r := g.whole()[id]; r["views"] != 7.0 || r["caption"] != nil || r["tags"] != nil || r["user_id"] != "" {
			g.t.Errorf("the new row is %v, want the application's defaults and no owner", r)
		}
		g.trueButTags(before)
	}))

	t.Run("ARowOfADeletedFileGoes", g.sub(func(g *guide) {
		g.webhooks(false)
		g.delete(ids[0])
		g.report(guideUser, ids[0])
		g.goneRow(ids[0])
		g.trueButTags(before)
	}))
	g.settles(time.Minute)
	g.identity()
}

// trueButTags waits until the table equals the library in every column but tags, which
// is the application's own in this table: there it holds what it held before.
func (g *guide) trueButTags(before map[string]map[string]any) {
	g.t.Helper()
	testenv.Eventually(g.t, time.Minute, func() error {
		want, have := g.library(), g.rows()
		if len(want) != len(have) {
			return fmt.Errorf("%d rows for %d files", len(have), len(want))
		}
		for id, w := range want {
			w.Tags = nil
			theirs, _ := before[id]["tags"].([]any)
			for _, tag := range theirs {
				w.Tags = append(w.Tags, fmt.Sprint(tag))
			}
			h := have[id]
			h.User, h.XMin = "", ""
			if !reflect.DeepEqual(h, w) {
				return fmt.Errorf("row %+v, want %+v", h, w)
			}
		}
		return nil
	})
}

// TestGuideServerGoesOnInserting: with --compat-insert the guide's own server never
// gets an error, whoever comes first; each file has one row, under the guide's user.
func TestGuideServerGoesOnInserting(t *testing.T) {
	t.Parallel()
	g := startGuide(t)
	g.migrates("--compat-insert")
	g.serves()

	t.Run("AfterTheWebhook", g.sub(func(g *guide) {
		for n := range 10 {
			id := g.uploads(n, nil)
			g.awaitRow(id)
			g.saves(id).want(g.t, http.StatusOK)
			if owner, kind := g.owner(id), g.ownerKind(id); owner != guideUser || kind != "adopted" {
				g.t.Errorf("the row belongs to %q (%s), want %s (adopted)", owner, kind, guideUser)
			}
		}
		g.converges(time.Minute)
		if n := g.compatInserts(); n != 10 {
			g.t.Errorf("%d inserts met a row of ours, want 10: this proves nothing", n)
		}
	}))

	t.Run("BeforeTheWebhook", g.sub(func(g *guide) {
		g.webhooks(false)
		defer g.webhooks(true)
		for n := range 10 {
			id := g.uploads(100+n, nil)
			g.saves(id).want(g.t, http.StatusOK)
			g.webhook("file.created", fmt.Sprintf(`{"fileId":%q}`, id)).want(g.t, http.StatusOK)
		}
		g.converges(time.Minute)
	}))

	t.Run("AtTheSameTime", g.sub(atTheSameTime))

	t.Run("AgainForEveryFile", g.sub(func(g *guide) {
		g.settles(time.Minute)
		before := g.rows()
		for id := range before {
			g.saves(id).want(g.t, http.StatusOK)
		}
		after := g.rows()
		for id, r := range before {
			if after[id].XMin != r.XMin {
				g.t.Errorf("row %s was rewritten by a repeated insert", id)
			}
		}
	}))

	t.Run("OverAnotherUsersFile", g.sub(func(g *guide) {
		g.webhooks(false)
		defer g.webhooks(true)
		id := g.uploads(900, nil)
		g.outcomeIs("ann", g.report("ann", id), "verified")
		g.saves(id).want(g.t, http.StatusOK)
		if owner, kind := g.owner(id), g.ownerKind(id); owner != "ann" || kind != "claimed" {
			g.t.Errorf("the row belongs to %q (%s), want ann (claimed)", owner, kind)
		}
	}))
	g.settles(time.Minute)
	g.converges(time.Minute)
	g.identity()
}

// atTheSameTime has the guide's server insert, twice, while ImageKit's webhook of the
// same file is under way; nobody waits for anybody. Some clients come up
// to 49 uploads later than others, so that now the one is first and now the other.
func atTheSameTime(g *guide) {
	const files, slowest = 200, 50
	met := g.compatInserts()
	var ids []string
	var saving sync.WaitGroup
	answers := make(chan answer, 2*files)
	for n := range files + slowest {
		if n < files {
			ids = append(ids, g.uploads(200+n, nil))
		}
		for k := max(0, n-slowest); k < min(n+1, files); k++ {
			if late := k % 8; k+late*late == n {
				id := ids[k]
				saving.Go(func() { answers <- g.saves(id) })
				saving.Go(func() { answers <- g.saves(id) })
			}
		}
	}
	saving.Wait()
	close(answers)
	if n := len(answers); n != 2*files {
		g.t.Errorf("%d inserts, want %d", n, 2*files)
	}
	for a := range answers {
		if a.status != http.StatusOK {
			g.t.Errorf("save-metadata: %d %s", a.status, a.body)
		}
	}
	g.settles(time.Minute)
	g.converges(time.Minute)
	rows := g.rows()
	for _, id := range ids {
		if owner, kind := rows[id].User, g.ownerKind(id); owner != guideUser || kind != "adopted" {
			g.t.Errorf("%s belongs to %q (%s), want %s (adopted)", id, owner, kind, guideUser)
		}
	}
	if n := g.count("SELECT count(DISTINCT file_id) FROM trueup.ledger WHERE kind='file.created' AND file_id = ANY($1)", ids); n != files {
		g.t.Errorf("%d webhooks in the ledger, want %d: this proves nothing", n, files)
	}
	if first := g.compatInserts() - met; first == 0 || first == files {
		g.t.Errorf("of %d files the webhook's row came first for %d: this proves nothing", files, first)
	} else {
		g.t.Logf("of %d files the webhook's row came first for %d", files, first)
	}
}

// compatInserts counts the inserts that came upon a row of ours without an owner.
func (g *guide) compatInserts() int {
	g.t.Helper()
	return g.count("SELECT count(*) FROM trueup.ledger WHERE source='application' AND kind='insert'")
}

// TestGuideServerCollidesWithoutTheTrigger is the control: without --compat-insert a
// webhook that comes first costs the guide's server a duplicate key.
func TestGuideServerCollidesWithoutTheTrigger(t *testing.T) {
	t.Parallel()
	g := startGuide(t)
	g.migrates()
	g.serves()
	id := g.uploads(1, nil)
	before := g.awaitRow(id)
	g.saves(id).want(t, http.StatusInternalServerError)
	testenv.Eventually(t, time.Minute, func() error {
		if !strings.Contains(g.server.log.String(), "duplicate key value violates unique constraint") {
			return errors.New("the guide's server has not said why it failed")
		}
		return nil
	})
	if after := g.rows()[id]; !reflect.DeepEqual(after, before) {
		t.Errorf("the row is %+v, was %+v", after, before)
	}
	// Adding the trigger while both run is the remedy, for this very file too.
	g.migrates("--compat-insert")
	g.saves(id).want(t, http.StatusOK)
	if owner := g.owner(id); owner != guideUser {
		t.Errorf("the row belongs to %q, want %s", owner, guideUser)
	}
	g.settles(time.Minute)
	g.converges(time.Minute)
}

// TestGuidesCurlSteps: the guide's three steps, typed as they stand there, against
// `trueup dev` end with the row that the guide's SELECT shows.
func TestGuidesCurlSteps(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl (Debian: apt-get install curl)")
	in := startDev(t, nil)
	image := filepath.Join(t.TempDir(), "picture.png")
	if err := os.WriteFile(image, picture(1), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "testdata/guide.sh")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SERVER=" + in.env["TRUEUP_URL"], "UPLOAD=" + in.env["IMAGE_KIT_BASE_URL"],
		"IMAGEKIT_PUBLIC_KEY=" + in.env["IMAGEKIT_PUBLIC_KEY"], "IMAGE=" + image}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("guide.sh: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	id := lines[len(lines)-1]
	testenv.Eventually(t, time.Minute, func() error {
		if n := in.count("SELECT count(*) FROM imagekit_files WHERE user_id = 'user_123' AND file_id = $1", id); n != 1 {
			return fmt.Errorf("the guide's SELECT shows %d rows for %q; the script said:\n%s", n, id, out)
		}
		return nil
	})
	in.converges(time.Minute)
	if kind := in.ownerKind(id); kind != "claimed" {
		t.Errorf("the owner is %s, want claimed", kind)
	}
}
