package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joho/godotenv"

	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/ticket"
)

// serveEnv is the least that serve starts with.
func serveEnv(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"IMAGEKIT_PUBLIC_KEY":     "public_abc",
		"IMAGEKIT_PRIVATE_KEY":    "private_SECRETSECRET",
		"IMAGEKIT_URL_ENDPOINT":   "https://ik.imagekit.io/demo_id/app",
		"IMAGEKIT_WEBHOOK_SECRET": "whsec_SECRETSECRET",
		"DATABASE_URL":            "postgres://me:SECRETSECRET@db.example.com/app?sslmode=verify-full",
		"TRUEUP_JWT_SECRET":       strings.Repeat("SECRETSECRET", 3),
		"TRUEUP_JWT_ISSUER":       "https://app.example.com",
		"TRUEUP_JWT_AUDIENCE":     "trueup",
		"TRUEUP_DATA_DIR":         filepath.Join(t.TempDir(), "data"),
	}
}

func with(env map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for k, v := range env {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

func mistakes(t *testing.T, err error) []string {
	t.Helper()
	var m *Mistakes
	if !errors.As(err, &m) {
		t.Fatalf("error is %v, not *Mistakes", err)
	}
	return m.Lines
}

func TestLoad(t *testing.T) {
	t.Run("DefaultsOfTheDesign", func(t *testing.T) {
		c, err := Load(Serve, serveEnv(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct{ what, got, want any }{
			{"addr", c.Listen.Addr, "127.0.0.1:3000"},
			{"ops addr", c.Listen.OpsAddr, "127.0.0.1:3001"},
			{"grace", c.Timing.NotFoundGrace, 15 * time.Minute},
			{"absent", c.Timing.AbsentConfirm, time.Minute},
			{"retry", c.Timing.RetryMaxAge, 24 * time.Hour},
			{"dead letters", c.Retain.DeadCaller, 90 * 24 * time.Hour},
			{"our own dead letters", c.Retain.DeadTrueup, 365 * 24 * time.Hour},
			{"tombstones", c.Retain.Tombstones, 730 * 24 * time.Hour},
			{"claim window", c.Ownership.ClaimWindow, time.Hour},
			{"ownership", c.Ownership.Mode, "claim"},
			{"rate", c.Listen.RatePerUser, 50.0},
			{"burst", c.Listen.RateBurst, 200},
			{"account", c.Ownership.Account, "demo_id"},
			{"base url", c.ImageKit.BaseURL, "https://api.imagekit.io"},
			{"queue", c.Queue.MaxBytes, Bytes(2 << 30)},
		} {
			if x.got != x.want {
				t.Errorf("%s: %v, want %v", x.what, x.got, x.want)
			}
		}
	})

	t.Run("DevSeesNothingOfProduction", func(t *testing.T) {
		env := with(serveEnv(t), "NATS_URL", "nats://prod", "IMAGE_KIT_BASE_URL", "https://api.imagekit.io",
			"DATABASE_URL_UNPOOLED", "garbage", "IMAGEKIT_PRIVATE_KEY_FILE", "/nowhere")
		c, err := Load(Dev, env)
		if err != nil {
			t.Fatal(err)
		}
		if c.Database.URL != "" || c.Queue.URL != "" || c.ImageKit.PrivateKey != "" || c.ImageKit.BaseURL != "" {
			t.Errorf("dev took over something: %+v", c)
		}
		if got := strings.Join(c.Ignored, " "); got != "DATABASE_URL DATABASE_URL_UNPOOLED IMAGEKIT_PRIVATE_KEY IMAGEKIT_PRIVATE_KEY_FILE "+
			"IMAGEKIT_PUBLIC_KEY IMAGEKIT_URL_ENDPOINT IMAGEKIT_WEBHOOK_SECRET IMAGE_KIT_BASE_URL NATS_URL" {
			t.Errorf("ignored: %s", got)
		}
		if c.Timing.NotFoundGrace != 3*time.Second || c.Timing.AbsentConfirm != time.Second ||
			c.Listen.RatePerUser != 0 {
			t.Errorf("dev's own defaults are not in force: %+v %+v", c.Timing, c.Listen)
		}
		if c.Callers.Secret == "" {
			t.Error("dev must still take TRUEUP_JWT_SECRET")
		}
	})

	t.Run("EveryMistakeAtOnce", func(t *testing.T) {
		_, err := Load(Serve, map[string]string{
			"TRUEUP_ADDR":            "3000",
			"TRUEUP_CLAIM_WINDOW":    "soon",
			"TRUEUP_OWNERSHIP":       "first",
			"TRUEUP_STREAM_PREFIX":   "a.b",
			"TRUEUP_RATE_BURST":      "-1",
			"DATABASE_URL":           "postgres://me:SECRETSECRET@host:notaport/db",
			"IMAGEKIT_PRIVATE_KEY":   "SECRETSECRET SECRET",
			"TRUEUP_DATA_DIR":        "/proc/nowhere",
			"TRUEUP_API_RATE_MAX":    "NaN",
			"TRUEUP_UPLOAD_FOLDER":   "/u/../v",
			"TRUEUP_JWT_SECRET":      "short",
			"TRUEUP_OPS_ADDR":        "0.0.0.0:3001",
			"TRUEUP_CORS_ORIGINS":    "https://app.example.com/path",
			"TRUEUP_QUEUE_MAX_BYTES": "lots",
		})
		lines := strings.Join(mistakes(t, err), "\n")
		for _, name := range []string{"TRUEUP_ADDR", "TRUEUP_CLAIM_WINDOW", "TRUEUP_OWNERSHIP", "TRUEUP_STREAM_PREFIX", "TRUEUP_RATE_BURST",
			"DATABASE_URL", "IMAGEKIT_PRIVATE_KEY", "TRUEUP_DATA_DIR", "TRUEUP_API_RATE_MAX", "TRUEUP_UPLOAD_FOLDER", "TRUEUP_JWT_SECRET",
			"TRUEUP_OPS_TOKEN", "TRUEUP_CORS_ORIGINS", "TRUEUP_QUEUE_MAX_BYTES",
			"IMAGEKIT_PUBLIC_KEY", "IMAGEKIT_URL_ENDPOINT", "IMAGEKIT_WEBHOOK_SECRET", "TRUEUP_JWT_ISSUER", "TRUEUP_JWT_AUDIENCE"} {
			if !strings.Contains(lines, name) {
				t.Errorf("no word about %s in:\n%s", name, lines)
			}
		}
		if strings.Contains(lines, "SECRETSECRET") {
			t.Errorf("a secret is quoted in:\n%s", lines)
		}
	})
}

func TestOneMistake(t *testing.T) {
	const pooled = "postgres://u:p@ep-x-pooler.eu.aws.neon.tech/db"
	tests := []struct {
		name string
		role Role
		set  []string
		want string // "" means accepted
	}{
		{"PoolerAcceptsPlain", Serve, []string{"DATABASE_URL", pooled + "?sslmode=require&channel_binding=require"}, ""},
		{"PoolerRefusesStatementTimeout", Serve, []string{"DATABASE_URL", pooled + "?statement_timeout=5s"}, "statement_timeout"},
		{"PoolerRefusesAllNamed", Serve, []string{"DATABASE_URL", pooled + "?search_path=a&lock_timeout=1&idle_in_transaction_session_timeout=1&options=-c%20x%3D1"}, "lock_timeout, idle_in_transaction_session_timeout, search_path, options"},
		{"PoolerRefusesPrepared", Serve, []string{"DATABASE_URL", pooled + "?default_query_exec_mode=cache_statement"}, "cache_describe"},
		{"PoolerAcceptsCacheDescribe", Serve, []string{"DATABASE_URL", pooled + "?default_query_exec_mode=cache_describe"}, ""},
		{"DirectAcceptsTimeouts", Serve, []string{"DATABASE_URL", "postgres://u:p@ep-x.neon.tech/db?statement_timeout=5s"}, ""},
		{"NoCaller", Serve, []string{"TRUEUP_JWT_SECRET", ""}, "neither TRUEUP_JWT_SECRET nor TRUEUP_JWKS_URL"},
		{"TwoCallers", Serve, []string{"TRUEUP_JWKS_URL", "https://idp.example.com/jwks"}, "keep one"},
		{"JWKSPlainHTTP", Serve, []string{"TRUEUP_JWT_SECRET", "", "TRUEUP_JWKS_URL", "http://idp.example.com/jwks"}, "must be https"},
		{"JWKSLoopback", Serve, []string{"TRUEUP_JWT_SECRET", "", "TRUEUP_JWKS_URL", "http://127.0.0.1:9/jwks"}, ""},
		{"BaseURLPlainHTTP", Serve, []string{"IMAGE_KIT_BASE_URL", "http://api.example.com"}, "must be https"},
		{"EmptyIsUnset", Serve, []string{"TRUEUP_ADDR", ""}, ""},
		{"ShortOperatorToken", Serve, []string{"TRUEUP_OPS_TOKEN", "ann:short"}, "at least 16"},
		{"DoubledOperatorName", Serve, []string{"TRUEUP_OPS_TOKEN", "ann:0123456789abcdef,ann:0123456789abcdeg"}, "name of its own"},
		{"NamedOperators", Serve, []string{"TRUEUP_OPS_ADDR", "0.0.0.0:1", "TRUEUP_OPS_TOKEN", "ann:0123456789abcdef,bob:0123456789abcdeg"}, ""},
		{"GraceAboveAge", Serve, []string{"TRUEUP_RETRY_MAX_AGE", "1m"}, "shorter than TRUEUP_NOT_FOUND_GRACE"},
		{"TombstonesOutlivedByACallersLetter", Serve, []string{"TRUEUP_RETAIN_DEAD_CALLER", "17500h"}, "not longer than TRUEUP_RETAIN_DEAD_CALLER (17500h0m0s) and TRUEUP_RETRY_MAX_AGE"},
		{"TombstonesOutlivedByAnImageKitLetter", Serve, []string{"TRUEUP_RETAIN_DEAD_IMAGEKIT", "20000h"}, "not longer than TRUEUP_RETAIN_DEAD_IMAGEKIT"},
		{"TombstonesOutlivedByADatabaseLetter", Worker, []string{"NATS_URL", "nats://a:4222", "TRUEUP_RETAIN_DEAD_DATABASE", "17520h"}, "not longer than TRUEUP_RETAIN_DEAD_DATABASE"},
		{"TombstonesForgottenBeforeOurOwnLetters", Dev, []string{"TRUEUP_RETAIN_TOMBSTONES", "8784h"}, "not longer than TRUEUP_RETAIN_DEAD_TRUEUP"},
		{"TombstonesOutlivedByALettersRetries", Serve, []string{"TRUEUP_RETRY_MAX_AGE", "8760h"}, "TRUEUP_RETRY_MAX_AGE (8760h0m0s) together"},
		{"TombstonesJustLongEnough", Serve, []string{"TRUEUP_RETAIN_TOMBSTONES", "8785h"}, ""},
		{"LedgerShorterThanReports", Serve, []string{"TRUEUP_RETAIN_LEDGER", "700h"}, "shorter than TRUEUP_REPORT_RETENTION"},
		{"NoRetention", Serve, []string{"TRUEUP_RETAIN_LEDGER", "0"}, "more than 0"},
		{"ZeroConfirm", Serve, []string{"TRUEUP_ABSENT_CONFIRM", "0s"}, "more than 0"},
		{"NoPoll", Serve, []string{"TRUEUP_POLL_EVERY", "0"}, ""},
		{"HastyPoll", Serve, []string{"TRUEUP_POLL_EVERY", "10ms"}, "0 or at least 1s"},
		{"NoSchedule", Worker, []string{"NATS_URL", "nats://a:4222", "TRUEUP_RECONCILE_EVERY", "0"}, ""},
		{"NegativeSchedule", Serve, []string{"TRUEUP_RECONCILE_EVERY", "-1h"}, "0 or at least 1s"},
		{"IngestNeedsNATS", Ingest, nil, "NATS_URL is not set"},
		{"WorkerNeedsNoCallers", Worker, []string{"NATS_URL", "nats://a:4222,nats://b:4222", "TRUEUP_JWT_SECRET", "", "TRUEUP_JWT_ISSUER", ""}, ""},
		{"MigrateNeedsOneAddress", Migrate, []string{"DATABASE_URL", ""}, "DATABASE_URL_UNPOOLED is not set"},
		{"MigrateTakesEither", Migrate, []string{"DATABASE_URL", "", "DATABASE_URL_UNPOOLED", "postgres://u:p@h/db"}, ""},
		{"KeywordAddress", Serve, []string{"DATABASE_URL", "host=db user=me password=SECRETSECRET dbname=app"}, ""},
		{"LongDrain", Serve, []string{"TRUEUP_DRAIN", "5m"}, "at most 30s"},
		{"FolderWithUser", Serve, []string{"TRUEUP_UPLOAD_FOLDER", "/u/{sub}"}, ""},
		{"FolderRelative", Serve, []string{"TRUEUP_UPLOAD_FOLDER", "u"}, "must begin with /"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(tt.role, with(serveEnv(t), tt.set...))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			lines := mistakes(t, err)
			if len(lines) != 1 || !strings.Contains(lines[0], tt.want) {
				t.Errorf("mistakes are %q, want one with %q", lines, tt.want)
			}
		})
	}
}

func TestAuditNeedsTwoVariables(t *testing.T) {
	if _, err := Load(Audit, map[string]string{"DATABASE_URL": "postgres://u:p@h/db", "IMAGEKIT_PRIVATE_KEY": "private_x"}); err != nil {
		t.Error(err)
	}
	_, err := Load(Audit, nil)
	if lines := mistakes(t, err); len(lines) != 2 {
		t.Errorf("mistakes are %q, want two", lines)
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("OneSecret", func(t *testing.T) {
		c, err := Load(Serve, with(serveEnv(t), "IMAGEKIT_PRIVATE_KEY", "", "IMAGEKIT_PRIVATE_KEY_FILE", write("key", "from_file\n")))
		if err != nil || c.ImageKit.PrivateKey.Reveal() != "from_file" {
			t.Errorf("%v %v", c, err)
		}
	})
	t.Run("OnePerLine", func(t *testing.T) {
		c, err := Load(Serve, with(serveEnv(t), "TRUEUP_KEYS_FILE", write("keys", strings.Repeat("k", 32)+"\n"+strings.Repeat("l", 32)+",\n")))
		if err != nil || len(c.Ownership.Keys) != 2 {
			t.Errorf("%v %v", c, err)
		}
	})
	for name, set := range map[string][]string{
		"Both":    {"IMAGEKIT_PRIVATE_KEY_FILE", write("both", "x")},
		"Missing": {"TRUEUP_KEYS_FILE", filepath.Join(dir, "nowhere")},
		"Empty":   {"TRUEUP_KEYS_FILE", write("empty", " \n")},
		"Secret":  {"TRUEUP_KEYS_FILE", strings.Repeat("SECRETSECRET", 3)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Serve, with(serveEnv(t), set...))
			if lines := mistakes(t, err); len(lines) != 1 || !strings.Contains(lines[0], "_FILE") || strings.Contains(lines[0], "SECRET") {
				t.Errorf("%q", lines)
			}
		})
	}
}

// TestNothingPrintsASecret is I18 for this package: by every way that Go prints.
func TestNothingPrintsASecret(t *testing.T) {
	env := with(serveEnv(t), "NATS_URL", "nats://u:SECRETSECRET@n:4222,nats://u:SECRETSECRET@m:4222",
		"TRUEUP_OPS_TOKEN", "ann:SECRETSECRETSECRET", "TRUEUP_KEYS", strings.Repeat("SECRETSECRET", 3)+","+strings.Repeat("SECRETSECRET", 4))
	c, err := Load(Serve, env)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.OperatorTokens())
		fmt.Fprintf(&out, verb+"\n", c.Database.URL)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		log := slog.New(h)
		log.LogAttrs(t.Context(), slog.LevelInfo, "start", c.Resolved()...)
		log.Info("one", "a", c.ImageKit.PrivateKey, "b", c.Ownership.Keys, "c", c.Database.URL, "d", c)
	}
	for _, form := range []string{"SECRETSECRET", fmt.Sprintf("%x", "SECRETSECRET"), "83 69 67"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is in:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), "postgres://db.example.com/app") {
		t.Error("the place of the database should be shown")
	}
}

// TestMinimaAreThoseOfTheirUsers: what a package would refuse later is refused here,
// with exit code 2.
func TestMinimaAreThoseOfTheirUsers(t *testing.T) {
	for name, least := range map[string]int{
		"TRUEUP_JWT_SECRET": caller.MinSecret, "IMAGEKIT_WEBHOOK_SECRET": signature.MinSecret, "TRUEUP_KEYS": ticket.MinSecret,
	} {
		if _, err := Load(Serve, with(serveEnv(t), name, strings.Repeat("x", least))); err != nil {
			t.Errorf("%s with %d bytes: %v", name, least, err)
		}
		if _, err := Load(Serve, with(serveEnv(t), name, strings.Repeat("x", least-1))); err == nil {
			t.Errorf("%s with %d bytes was accepted", name, least-1)
		}
	}
}

func TestTable(t *testing.T) {
	for _, v := range Table() {
		if v.Name == "" || v.Doc == "" || strings.Contains(v.Doc, "|") {
			t.Errorf("%+v needs a name and a doc without |", v)
		}
		for _, name := range v.checks {
			if checks[name] == nil {
				t.Errorf("%s: no check named %s", v.Name, name)
			}
		}
		for _, r := range v.Required {
			if !v.UsedBy(r) {
				t.Errorf("%s is required by %s, which does not use it", v.Name, r)
			}
		}
	}
}

func TestEnvExampleIsReadBack(t *testing.T) {
	var b bytes.Buffer
	if err := EnvExample(&b); err != nil {
		t.Fatal(err)
	}
	got, err := godotenv.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got["DATABASE_URL"]; !ok || len(got) != 7 {
		t.Errorf("variables left to fill in: %v", got)
	}
}

func TestDotEnv(t *testing.T) {
	dir := t.TempDir()
	if env, err := WithDotEnv(map[string]string{"A": "1"}, dir); err != nil || len(env) != 1 {
		t.Errorf("without a file: %v %v", env, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("A=file\nB=file\nC=\"x y\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env, err := WithDotEnv(map[string]string{"A": "1", "B": ""}, dir)
	if err != nil || env["A"] != "1" || env["B"] != "file" || env["C"] != "x y" {
		t.Errorf("with a file: %v %v", env, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("SECRETSECRET\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := WithDotEnv(nil, dir); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("broken file: %v", err)
	}
}

func TestUnknownNamesWarn(t *testing.T) {
	c, err := Load(Serve, with(serveEnv(t), "TRUEUP_ABSENT_CONFRIM", "1s", "TRUEUP_TEST_X", "1", "TRUEUP_URL", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Warnings, "\n"); strings.Count(got, "knows no such variable") != 1 || !strings.Contains(got, "CONFRIM") {
		t.Error(got)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "17": 17, "1KiB": 1024, "512 MiB": 512 << 20, "2GB": 2e9, "5B": 5} {
		var b Bytes
		if err := b.EnvDecode(text); err != nil || b != want {
			t.Errorf("%s: %d %v", text, b, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5GB", "99999999999GiB"} {
		var b Bytes
		if err := b.EnvDecode(text); err == nil {
			t.Errorf("%q accepted as %d", text, b)
		}
	}
}
