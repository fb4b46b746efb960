package testenv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/localpg"
)

// Postgres returns the URL of a fresh, empty database on a real server that all
// tests of the binary share. The test's cleanup drops it, whoever is still
// connected. The role in the URL is a superuser.
func Postgres(t testing.TB) string {
	t.Helper()
	server := sharedServer(t)
	name := databaseName(t)
	execute(t, server.URL(localpg.Superuser), "CREATE DATABASE "+name)
	t.Cleanup(func() { execute(t, server.URL(localpg.Superuser), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return server.URL(name)
}

func sharedServer(t testing.TB) *localpg.Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.postgres != nil {
		return shared.postgres
	}
	c := localpg.Config{Dir: shared.folder(t, "postgres"), Programs: programs(t), Parameters: testParameters()}
	server, err := localpg.Start(context.Background(), c)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	shared.postgres = server
	shared.ends = append(shared.ends, server.Stop)
	return server
}

// testParameters suit many small databases on a small machine. Durability stays on:
// tests judge what production does.
func testParameters() map[string]string {
	return map[string]string{"max_connections": "200", "shared_buffers": "32MB"}
}

// programs finds the server's programs, or fetches them; shared.mu is held.
func programs(t testing.TB) localpg.Programs {
	t.Helper()
	if shared.programs.Bin != "" {
		return shared.programs
	}
	p, err := localpg.Obtain(context.Background(), localpg.ObtainOptions{Progress: os.Stderr})
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	shared.programs = p
	return p
}

// databaseName is readable in a server's log and never used twice.
func databaseName(t testing.TB) string {
	t.Helper()
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, t.Name())
	random := make([]byte, 5)
	if _, err := rand.Read(random); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return "t_" + clean[:min(len(clean), 40)] + "_" + hex.EncodeToString(random)
}

// execute runs one statement on a connection of its own.
func execute(t testing.TB, url, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("testenv: connect to PostgreSQL: %v", err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Fatalf("testenv: %s: %v", sql, err)
	}
}
