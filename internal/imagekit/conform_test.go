package imagekit_test

import (
	"cmp"
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/testenv/conform"
)

// TestItConforms holds the client to what a simulated library promises, too, over HTTP.
func TestItConforms(t *testing.T) {
	const key = "private_conforming"
	conform.Library(t, conform.Libraries{Account: func(t testing.TB) conform.Account {
		e, err := emulator.New(emulator.Config{Dir: t.TempDir(), PublicKey: "public_conforming", PrivateKey: key})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- e.Run(ctx) }()
		way := &http.Transport{}
		t.Cleanup(func() {
			way.CloseIdleConnections()
			stop()
			if err := <-over; err != nil {
				t.Error(err)
			}
		})
		return conform.Account{Origin: e.URL(), Way: way, PrivateKey: key,
			Open: func(stranger string, timeout time.Duration) conform.LibraryDoor {
				c, err := imagekit.New(imagekit.Config{BaseURL: e.URL(), PrivateKey: cmp.Or(stranger, key), Timeout: timeout})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				return c
			}}
	}})
}
