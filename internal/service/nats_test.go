package service_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestNATSIsKilled: kill -9 of the external queue while reports come in. They are
// refused meanwhile, by an ingest that was started without it, too; afterwards nothing
// that was accepted is missing, and nobody had to be restarted.
func TestNATSIsKilled(t *testing.T) {
	t.Parallel()
	a := startApart(t, nil)
	a.webhooks(false)
	a.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	ids := a.generate("/nats", 200)
	killed := make(chan struct{})
	l := a.under(ids, func() {
		defer close(killed)
		a.nats.Kill9()
		for range a.public {
			testenv.Eventually(t, time.Minute, func() error {
				return a.call("ann", "POST", "/save-metadata", map[string]string{"fileId": ids[0]}).refused(a.installation)
			})
		}
		a.ingests[0].kill9()
		a.ingests[0].restart()
		testenv.Eventually(t, time.Minute, func() error {
			return a.refuses(a.public[0])
		})
		a.nats.Restart()
	})
	<-killed
	l.wg.Wait()
	if l.refused.Load() == 0 {
		t.Error("nobody was refused: this proves nothing")
	}
	a.answers(a.public[0]+"/readyz", a.public[1]+"/readyz")
	a.settles(2 * time.Minute)
	a.owned(len(ids), "ann")
	if n := a.lines(); n < len(ids) {
		t.Errorf("%d events have an end, at least %d were accepted", n, len(ids))
	}
	a.nothingParked()
	a.identity()
	for _, p := range append(a.workers, a.ingests[1]) {
		p.neverEnded()
	}
}

// refuses returns nil when an ingest says at address that it is not ready, and why.
func (in *installation) refuses(address string) error {
	r, err := http.NewRequest(http.MethodGet, address+"/readyz", nil)
	if err != nil {
		return err
	}
	a := in.send(r)
	if a.status != http.StatusServiceUnavailable {
		return fmt.Errorf("GET %s/readyz: %d %s", address, a.status, a.body)
	}
	if a.text(in.t, "why") == "" {
		in.t.Errorf("not ready, and no word why: %s", a.body)
	}
	return nil
}
