package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestNewLogger(t *testing.T) {
	t.Run("WritesJSONWhereNobodyLooks", func(t *testing.T) {
		var out bytes.Buffer
		NewLogger(LogConfig{Out: &out}).Info("started", "port", 3000)
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "started" {
			t.Errorf("%v: %s", err, out.String())
		}
	})
	t.Run("WritesTextWhenTold", func(t *testing.T) {
		var out bytes.Buffer
		NewLogger(LogConfig{Out: &out, Format: "text"}).Info("started")
		if !strings.Contains(out.String(), "msg=started") {
			t.Error(out.String())
		}
	})
	t.Run("KeepsToItsLevel", func(t *testing.T) {
		for name, lines := range map[string]int{"debug": 4, "": 3, "info": 3, "warn": 2, "error": 1} {
			var out bytes.Buffer
			log := NewLogger(LogConfig{Out: &out, Level: name})
			log.Debug("a")
			log.Info("a")
			log.Warn("a")
			log.Error("a")
			if got := strings.Count(out.String(), "\n"); got != lines {
				t.Errorf("%s: %d lines, want %d", name, got, lines)
			}
		}
	})
	t.Run("TakesNoFileForATerminal", func(t *testing.T) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		if Terminal(null) || Terminal(&bytes.Buffer{}) {
			t.Error("taken for a terminal")
		}
	})
}

// TestSecretsDoNotReachTheLog is I18 for whatever a careless line hands in.
func TestSecretsDoNotReachTheLog(t *testing.T) {
	const s = "s3cr3tValue99"
	attrs := []any{
		"authorization", "Bearer " + s, "password", s, "ops_token", s, "jwtSecret", []byte(s),
		"error", fmt.Errorf("connect: %w", errors.New("postgres://me:"+s+"@db/app?x=1 refused")),
		"text", "nats://u:" + s + "@n:4222", "detail", "key private_" + s + " rejected", "head", "Basic " + s + "==",
		"hook", "whsec_" + s, "jwt", "eyJhbGciOiJ9." + s + "." + s,
		slog.Group("g", "cookie", s),
	}
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		NewLogger(LogConfig{Out: &out, Format: format}).With("signature", s).Info("line about private_"+s, attrs...)
		if strings.Contains(out.String(), s) {
			t.Errorf("%s: %s", format, out.String())
		}
		for _, kept := range []string{"refused", "n:4222", "rejected", "me:"} {
			if !strings.Contains(out.String(), kept) {
				t.Errorf("%s: %q was lost in %s", format, kept, out.String())
			}
		}
	}
}

func TestRegistriesAreApart(t *testing.T) {
	for range 2 {
		rec := httptest.NewRecorder()
		MetricsHandler(NewRegistry("v1")).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		if body := rec.Body.String(); rec.Code != 200 || !strings.Contains(body, `trueup_build_info{version="v1"} 1`) || !strings.Contains(body, "go_goroutines") {
			t.Errorf("%d %s", rec.Code, body)
		}
	}
}
