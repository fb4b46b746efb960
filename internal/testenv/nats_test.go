package testenv_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/testenv"
)

func stream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestNATSServer(t *testing.T) {
	t.Run("KeepsWhatItAcknowledgedThroughKill9", func(t *testing.T) {
		server := testenv.NATSServer(t, testenv.NATSOptions{})
		js := stream(t, server.URL())
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		before := server.URL()
		server.Kill9()
		if c, err := nats.Connect(before); err == nil {
			c.Close()
			t.Fatal("a killed server answers")
		}
		server.Restart()
		if server.URL() != before {
			t.Fatalf("URL changed from %s to %s", before, server.URL())
		}
		s, err := stream(t, before).Stream(t.Context(), "S")
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n != 3 {
			t.Fatalf("%d messages after the kill, 3 were acknowledged", n)
		}
	})
	t.Run("AClusterOfThreeOutlivesOne", func(t *testing.T) {
		cluster := testenv.NATSServer(t, testenv.NATSOptions{Cluster: 3})
		js := stream(t, cluster.URL())
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "R3", Subjects: []string{"r3"}, Replicas: 3}); err != nil {
			t.Fatal(err)
		}
		cluster.Node(0).Kill9()
		testenv.Eventually(t, time.Minute, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := js.Publish(ctx, "r3", []byte("x"))
			return err
		})
		cluster.Node(0).Restart()
	})
}
