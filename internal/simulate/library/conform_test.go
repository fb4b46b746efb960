package library_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/simulate/library"
	"github.com/trueup/trueup/internal/testenv/conform"
)

func TestItConforms(t *testing.T) {
	conform.Library(t, conform.Libraries{
		Run: func(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) },
		Account: func(t testing.TB) conform.Account {
			l := open(t, library.Config{})
			return conform.Account{Origin: library.Origin, Way: l, PrivateKey: "private_simulated",
				Open: func(key string, timeout time.Duration) conform.LibraryDoor {
					c, err := l.Client(imagekit.Config{PrivateKey: key, Timeout: timeout}, nil)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(c.Close)
					return c
				}}
		},
	})
}
