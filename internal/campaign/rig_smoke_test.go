package campaign

import (
	"context"
	"testing"
	"time"
)

// TestRig: an installation of each shape works, and goes on after each of its parts was
// killed or frozen.
func TestRig(t *testing.T) {
	r := start(t, Options{PgBouncer: true, Links: true})
	ctx := context.Background()
	id, err := r.Upload(ctx, map[string]string{"fileName": "first.png"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Report(ctx, 0, "ann", id); a.Status != 202 {
		t.Fatalf("report: %+v", a)
	}
	if err := r.Settle(time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, name := range r.order {
		if err := r.Freeze(name); err != nil {
			t.Error(err)
		}
		if err := r.Thaw(name); err != nil {
			t.Error(err)
		}
		if name == "emulator" {
			continue
		}
		if err := r.Kill9(name); err != nil {
			t.Error(err)
		}
		if err := r.Restart(name); err != nil {
			t.Error(err)
		}
	}
	if err := r.Heal(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := r.Settle(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := r.Fell(); err != nil {
		t.Error(err)
	}
}
