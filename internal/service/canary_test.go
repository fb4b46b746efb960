package service_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/internal/testenv/canary"
)

// TestI18SecretsNeverLeave: whatever goes wrong, no secret stands in a log (at the level
// debug), a metric, a page of either listener, a dead letter, the output of a command, a
// table, or the queue's files. What goes wrong: four classes of dead letters; ImageKit
// echoing our key, in answers about one file and about all; the database killed and its
// address in every error; panics; a crash with the stacks of all goroutines; senders who
// know our secrets and put them into bodies; and configurations that are wrong in the
// secret itself.
func TestI18SecretsNeverLeave(t *testing.T) {
	t.Parallel()
	pg := testenv.PostgresServer(t)
	env := map[string]string{
		"DATABASE_URL": pg.URL(), "TRUEUP_LOG_LEVEL": "debug", "TRUEUP_RATE_PER_USER": "0", "TRUEUP_BAD_SIGNATURES_PER_MINUTE": "0",
		"TRUEUP_KEYS":             "canary-of-the-first-sealing-key-0001,canary-of-the-other-sealing-key-0002",
		"IMAGEKIT_PRIVATE_KEY":    "private_canaryOfTheKey/+0123456789=",
		"IMAGEKIT_WEBHOOK_SECRET": "whsec_Y2FuYXJ5LW9mLWEtd2ViaG9vaw==", "TRUEUP_JWT_SECRET": "canary-of-the-secret-that-signs-app-tokens", "TRUEUP_OPS_TOKEN": "canary-of-the-operators-token",
	}
	maps.Copy(env, ailingEnv())
	in := startServeTagged(t, env, []string{"planted"})
	secrets, err := canary.FromEnv(in.env)
	if err != nil || len(secrets) < 7 {
		t.Fatalf("%d secrets: %v", len(secrets), err)
	}
	texts := map[string]string{}

	files := in.ail(3)
	in.awaitDead(12)
	var ids []string
	for _, class := range files {
		ids = append(ids, class...)
	}
	secrets = append(secrets, in.travelling(ids[0])...)
	in.keyIsEchoed(&ids)
	in.databaseDies(pg, ids, texts)
	in.crashes()
	in.says(texts, ids)
	in.badConfigurations(texts)

	in.settles(time.Minute)
	texts["log of serve"] = in.dev.log.String()
	if n := len(texts["log of serve"]); n < 10_000 || n >= 1<<20 {
		t.Errorf("the log has %d bytes: too few to prove anything, or cut", n)
	}
	in.logIsOfAll(texts["log of serve"])
	places := canary.Places{
		Secrets: secrets, Texts: texts, Public: []string{in.env["TRUEUP_URL"]}, Operator: []string{in.env["TRUEUP_OPS_URL"]},
		OperatorToken: in.env["TRUEUP_OPS_TOKEN"], FileIDs: ids, Database: pg.URL(), Dirs: []string{in.env["TRUEUP_DATA_DIR"]},
	}
	r := canary.Check(t, places)
	t.Logf("searched %v, %d bytes", r.Searched, r.Bytes)
	for kind, least := range map[string]int{"page": 40, "table": 15, "file": 3, "text": 20} {
		if r.Searched[kind] < least {
			t.Errorf("%d of the kind %s were searched, want %d", r.Searched[kind], kind, least)
		}
	}

	// What a sender writes into a body is in the queue until it is settled; what is kept of
	// it afterwards is masked.
	in.secretsInABody(secrets, &ids)
	places.FileIDs, places.Dirs, places.Texts = ids, nil, map[string]string{"log of serve": in.dev.log.String(), "export": must(t, in.env, "dead", "export")}
	canary.Check(t, places)
}

// travelling are secrets that requests carry: a user's token, a signature, a permission
// to upload. They are used once each.
func (in *installation) travelling(fileID string) []canary.Secret {
	in.t.Helper()
	token := in.token("canary")
	r, err := http.NewRequest(http.MethodPost, in.url()+"/save-metadata", strings.NewReader(fmt.Sprintf(`{"fileId":%q}`, fileID)))
	if err != nil {
		in.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Cookie", "session=canary-of-a-users-session")
	in.send(r).want(in.t, http.StatusAccepted)
	var standard, legacy string
	in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q}`, fileID), func(h http.Header) {
		standard, legacy = strings.TrimPrefix(h.Get("Webhook-Signature"), "v1,"), h.Get("X-Ik-Signature")
		h.Set("Authorization", "Bearer canary-of-a-proxys-token")
	}).want(in.t, http.StatusOK)
	_, legacy, _ = strings.Cut(legacy, "v1=")
	permission := in.grant("canary", map[string]any{"fileName": "c.png"})["token"]
	signature := func(token string) string { return token[strings.LastIndex(token, ".")+1:] }
	in.call("canary", "GET", "/generate-auth-params", nil).want(in.t, http.StatusOK)
	return []canary.Secret{
		{Name: "a user's token", Value: signature(token)}, {Name: "a user's session", Value: "canary-of-a-users-session"}, {Name: "a proxy's token", Value: "canary-of-a-proxys-token"},
		{Name: "a webhook's signature", Value: standard}, {Name: "a webhook's older signature", Value: legacy}, {Name: "a permission to upload", Value: signature(permission)},
	}
}

// keyIsEchoed has ImageKit send our key back, as broken proxies do: about one file until
// it is a dead letter, and about everything.
func (in *installation) keyIsEchoed(ids *[]string) {
	in.t.Helper()
	key := in.env["IMAGEKIT_PRIVATE_KEY"]
	basic := base64.StdEncoding.EncodeToString([]byte(key + ":"))
	echo := map[string]any{"message": "you sent " + key, "authorization": "Basic " + basic}
	id := in.generate("/echo", 1)[0]
	*ids = append(*ids, id)
	in.plantFault(map[string]any{"path": "/v1/files*", "fileId": id, "status": 503, "body": echo, "headers": map[string]string{"x-ik-requestId": key, "Location": "https://" + key + "@x.example/"}})
	in.report("ann", id)
	testenv.Eventually(in.t, time.Minute, func() error {
		if in.count("SELECT count(*) FROM trueup.dead_letters WHERE file_id=$1", id) == 0 {
			return errors.New("the file is no dead letter yet")
		}
		return nil
	})
	for _, status := range []int{401, 500, 302, 200} {
		fault := map[string]any{"path": "/v1/*", "status": status, "body": echo, "headers": map[string]string{"x-ik-requestId": basic}}
		before := in.stats().Faults
		n := in.plantFault(fault)
		in.hint(id)
		in.awaitFaults(before, 2)
		in.control("DELETE", fmt.Sprintf("faults/%d", n), nil)
	}
}

// databaseDies kills the database under reports and questions, and has commands meet it
// so.
func (in *installation) databaseDies(pg *testenv.PostgresProcess, ids []string, texts map[string]string) {
	in.t.Helper()
	pg.Kill9()
	reports := in.reportMany("ann", ids)
	in.call("ann", "GET", "/reports/"+reports[0], nil)
	in.awaitOutage("database")
	in.ops("GET", "/api/files/"+ids[0], nil)
	in.ops("GET", "/api/dead", nil)
	texts["pages without a database"] = in.ops("GET", "/api/status", nil).string() + in.call("", "GET", "/readyz", nil).string()
	for _, args := range [][]string{{"migrate", "status"}, {"audit"}, {"status"}, {"dead", "list"}} {
		stdout, stderr, _ := once(in.t, in.env, args...)
		texts[fmt.Sprint("without a database ", args)] = stdout + stderr
	}
	pg.Start()
	in.db.Reset()
	in.settles(2 * time.Minute)
}

func (a answer) string() string { return fmt.Sprint(a.status, a.header, string(a.body)) }

// crashes ends serve with the stacks of all its goroutines.
func (in *installation) crashes() {
	in.t.Helper()
	in.dev.signal(syscall.SIGQUIT)
	in.dev.said("goroutine ")
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
}

// says runs the commands that tell people something.
func (in *installation) says(texts map[string]string, ids []string) {
	in.t.Helper()
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"dead", "list", "--json"}, {"dead", "count"}, {"dead", "export"}, {"why", ids[0]}, {"why", "--json", ids[len(ids)-1]}, {"audit"}, {"migrate", "status"}, {"migrate", "up", "--print"},
		{"reconcile", "plan", "--json"}, {"reconcile", "list"}, {"version"}, {"help", "config"}, {"trigger", "file.deleted"}, {"dead", "replay", "--all", "--yes", "--wait", "--json"},
	} {
		stdout, stderr, _ := once(in.t, in.env, args...)
		if stdout+stderr == "" {
			in.t.Errorf("trueup %v says nothing: this proves nothing", args)
		}
		texts[fmt.Sprint(args)] = stdout + stderr
	}
}

// badConfigurations starts roles whose secrets are the very thing that is wrong.
func (in *installation) badConfigurations(texts map[string]string) {
	in.t.Helper()
	database := in.env["DATABASE_URL"]
	at := strings.LastIndex(database, "@")
	for name, set := range map[string]map[string]string{
		"a blank in each":   {"IMAGEKIT_PRIVATE_KEY": in.env["IMAGEKIT_PRIVATE_KEY"] + " x", "IMAGEKIT_WEBHOOK_SECRET": in.env["IMAGEKIT_WEBHOOK_SECRET"] + "\tx", "TRUEUP_KEYS": in.env["TRUEUP_KEYS"] + " x", "TRUEUP_OPS_TOKEN": in.env["TRUEUP_OPS_TOKEN"] + " x"},
		"no port":           {"DATABASE_URL": database[:at] + "@host:notaport/db"},
		"no address":        {"DATABASE_URL": "x" + strings.Replace(database, "://", ":/", 1), "NATS_URL": "http://canary:" + in.env["TRUEUP_OPS_TOKEN"] + "@n"},
		"the wrong place":   {"DATABASE_URL": database[:at] + "@127.0.0.1:1/db", "TRUEUP_ADDR": "127.0.0.1:0", "TRUEUP_OPS_ADDR": "127.0.0.1:0"},
		"queue unreachable": {"NATS_URL": "nats://canary:" + in.env["TRUEUP_OPS_TOKEN"] + "@127.0.0.1:1", "TRUEUP_ADDR": "127.0.0.1:0", "TRUEUP_OPS_ADDR": "127.0.0.1:0"},
		"both ways":         {"IMAGEKIT_PRIVATE_KEY_FILE": in.env["IMAGEKIT_PRIVATE_KEY"]},
		"for the file":      {"TRUEUP_KEYS": "", "TRUEUP_KEYS_FILE": in.env["TRUEUP_KEYS"], "TRUEUP_OPS_TOKEN": "", "TRUEUP_OPS_TOKEN_FILE": in.env["TRUEUP_OPS_TOKEN"], "NATS_CREDS": filepath.Join("/nowhere", in.env["TRUEUP_DATA_DIR"])},
		"in a JWKS":         {"TRUEUP_JWT_SECRET": "", "TRUEUP_JWKS_URL": "https://canary:" + in.env["TRUEUP_JWT_SECRET"] + "@keys.example/jwks"},
		"in ImageKit's URL": {"IMAGE_KIT_BASE_URL": "https://" + in.env["TRUEUP_JWT_SECRET"] + "@api.example"},
	} {
		for _, role := range []string{"serve", "ingest"} {
			env := maps.Clone(in.env)
			env["TRUEUP_DATA_DIR"] = testenv.Dir(in.t)
			maps.Copy(env, set)
			p := start(in.t, env, role)
			if outage := name == "the wrong place" && role == "serve" || name == "queue unreachable"; outage {
				testenv.Eventually(in.t, time.Minute, func() error {
					if !strings.Contains(p.log.String(), "127.0.0.1:1") && !strings.Contains(p.log.String(), "refused") {
						return fmt.Errorf("%s has not said what it misses: %q", role, p.log.String())
					}
					return nil
				})
				p.stop()
			} else if code := p.code(); code != 2 && !slices.Contains([]string{"for the file"}, name) {
				in.t.Errorf("%s with a secret that is %s: exit %d, want 2\n%s", role, name, code, p.log)
			}
			texts[role+" with a secret that is "+name] = p.log.String()
		}
	}
}

// logIsOfAll fails when what should have been said was not: then nothing is proved.
func (in *installation) logIsOfAll(log string) {
	in.t.Helper()
	for _, word := range []string{`"level":"DEBUG"`, "panic", "connect", "goroutine ", "imagekit"} {
		if !strings.Contains(log, word) {
			in.t.Errorf("the log does not speak of %q: this proves nothing", word)
		}
	}
}

// secretsInABody reports files with our secrets in the body, until they are dead.
func (in *installation) secretsInABody(secrets []canary.Secret, ids *[]string) {
	in.t.Helper()
	id := in.generate("/knowing", 1)[0]
	*ids = append(*ids, id)
	body := map[string]string{"fileId": id, "plant": "panic"}
	for i, s := range secrets {
		if !strings.HasPrefix(s.Name, "a ") && s.Name != "DATABASE_URL" { // only of those does trueup know that they are secrets
			body[fmt.Sprint("known", i)] = s.Value
		}
	}
	before := in.count("SELECT count(*) FROM trueup.dead_letters")
	in.call("eve", "POST", "/save-metadata", body).want(in.t, http.StatusAccepted)
	testenv.Eventually(in.t, time.Minute, func() error {
		if n := in.count("SELECT count(*) FROM trueup.dead_letters"); n != before+1 {
			return fmt.Errorf("%d dead letters, want %d", n, before+1)
		}
		return nil
	})
	if n := in.count("SELECT count(*) FROM trueup.dead_letters WHERE file_id=$1 AND jsonb_array_length(masked) >= 5", id); n != 1 {
		in.t.Errorf("%d letters with five masked parts, want 1", n)
	}
	in.settles(time.Minute)
}
