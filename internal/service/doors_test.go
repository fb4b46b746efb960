package service_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/queue"
	"github.com/trueup/trueup/internal/simulate/wire"
)

// TestListenersAreADoor runs an ingest whose servers listen on a network of pipes, inside
// a bubble: it takes a report, and gives its addresses up when it stops.
func TestListenersAreADoor(t *testing.T) { synctest.Test(t, ingestOnPipes) }

func ingestOnPipes(t *testing.T) {
	const secret = "a secret of at least thirty-two bytes"
	c := &config.Config{Role: config.Ingest}
	c.Listen = config.Listen{Addr: "127.0.0.1:3000", OpsAddr: "127.0.0.1:3001", Drain: 6 * time.Second}
	c.Callers = config.Callers{Secret: secret, Issuer: "i", Audience: "a"}
	c.ImageKit = config.ImageKit{PublicKey: "public_x", PrivateKey: "private_x", URLEndpoints: []string{"http://imagekit.invalid/x"}, WebhookSecrets: config.Secrets{"whsec_0123456789abcdef"}}
	c.Ownership = config.Ownership{Mode: "claim", Account: "x", Keys: config.Secrets{config.Secret(strings.Repeat("k", 40))}}
	c.Timing = config.Timing{ReportRetention: time.Hour}

	n, stream := &wire.Network{}, queue.NewStream(queue.Server{})
	q, err := queue.Open(stream, queue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	s, err := service.New(service.Config{Config: c, Version: "test"}, service.Doors{Queue: q, Listen: n.Listen})
	if err != nil {
		t.Fatal(err)
	}
	public, ops, err := s.Listen(t.Context())
	if err != nil || public != "127.0.0.1:3000" || ops != "127.0.0.1:3001" {
		t.Fatalf("%s %s %v", public, ops, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- s.Run(ctx) }()

	way := n.Transport()
	defer way.CloseIdleConnections()
	claims := jwt.RegisteredClaims{Subject: "user_123", Issuer: "i", Audience: jwt.ClaimStrings{"a"}, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, url, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		w, err := way.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		said, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.StatusCode, string(said)
	}
	if status, said := ask("POST", "http://"+public+"/save-metadata", `{"fileId":"f1"}`); status != 202 || len(stream.Held()) != 1 {
		t.Errorf("%d %s, %d held", status, said, len(stream.Held()))
	}
	if status, said := ask("GET", "http://"+ops+"/readyz", ""); status != 200 || !strings.Contains(said, "fsync") {
		t.Errorf("%d %s", status, said)
	}
	began := time.Now()
	stop()
	if err := <-over; err != nil || time.Since(began) > c.Listen.Drain {
		t.Errorf("it ended with %v after %v", err, time.Since(began))
	}
	if _, err := n.Dial(t.Context(), "tcp", public); err == nil {
		t.Error("its address is taken still")
	}
}
