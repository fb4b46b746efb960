package service_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/testenv"
)

// TestDevShowsTheJourneyAndNeverTouchesProduction: with a whole production
// environment around it dev says what it ignores, uses only what it starts itself,
// and takes its sample upload the whole way.
func TestDevShowsTheJourneyAndNeverTouchesProduction(t *testing.T) {
	t.Parallel()
	production, dir := testenv.Postgres(t), testenv.Dir(t)
	env := map[string]string{
		"TRUEUP_ADDR": "127.0.0.1:0", "TRUEUP_OPS_ADDR": "127.0.0.1:0", "TRUEUP_EMULATOR_ADDR": "127.0.0.1:0",
		"DATABASE_URL": production, "NATS_URL": "nats://127.0.0.1:1", "IMAGEKIT_PRIVATE_KEY": "private_production_production", "IMAGE_KIT_BASE_URL": "http://127.0.0.1:1",
	}
	in := &installation{t: t}
	env["TRUEUP_DATA_DIR"] = dir
	in.dev = start(t, env, "dev", "--data-dir", dir)
	in.env = in.awaitDev()
	in.connect()

	said := in.dev.log.String()
	for _, want := range []string{"dev ignores DATABASE_URL, IMAGEKIT_PRIVATE_KEY, IMAGE_KIT_BASE_URL, NATS_URL", "user_123",
		"signed ", "uploaded ", "reported ", "verified ", "in the table ", "told again "} {
		if !strings.Contains(said, want) {
			t.Errorf("dev has not said %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "private_production") {
		t.Error("dev shows the key it ignores")
	}
	if n := in.count("SELECT count(*) FROM public.imagekit_files WHERE user_id = 'user_123'"); n != 1 {
		t.Errorf("%d rows of user_123, want the sample's", n)
	}
	if err := in.differs(); err != nil {
		t.Error(err)
	}
	for name, value := range in.env {
		if env[name] == value && name != "TRUEUP_DATA_DIR" {
			t.Errorf("dev.env has %s of production", name)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, config.DevEnvName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("dev.env: %v %v, want mode 0600", st, err)
	}
	in.call("", http.MethodPost, "/save-metadata", map[string]string{"fileId": "aaaaaaaaaaaaaaaaaaaaaaaa"}).want(t, http.StatusAccepted)

	c, err := pgx.Connect(t.Context(), production)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	var tables int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog','information_schema')").Scan(&tables); err != nil || tables != 0 {
		t.Errorf("production has %d tables (%v), want none", tables, err)
	}
}
