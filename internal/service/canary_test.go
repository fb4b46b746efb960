package service

import (
	"testing"
	"time"
)

// A library that is another's for a moment answers both 404s with one lie; a canary from
// before the first of them must not vouch for it.
func TestACanaryIsYoungerThanTheFirst404(t *testing.T) {
	for _, c := range []struct{ confirm, want time.Duration }{
		{time.Second, 833333333}, {5 * time.Second, 4166666666}, {time.Minute, 50 * time.Second}, {time.Hour, 50 * time.Second},
	} {
		if got := canaryFor(c.confirm); got != c.want || got >= c.confirm {
			t.Errorf("absences confirmed after %s: canaries for %s, want %s", c.confirm, got, c.want)
		}
	}
}
