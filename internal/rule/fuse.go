package rule

import (
	"fmt"
	"time"
)

// The fuse bears this many candidates in a rolling day, or this share of the live rows.
const (
	FuseWindow = 24 * time.Hour
	FuseFloor  = 10
	FuseShare  = 20 // one in twenty
)

// PlanBraked is Plan, and Plan once more with the fuse latched where this call's
// candidates are more than it bears; Latched of f says so afterwards. live counts the live
// rows, no further than atMost; it is asked only above the floor.
func PlanBraked(c *Call, s Settings, f *Facts, live func(atMost int64) (int64, error)) ([]*FilePlan, error) {
	files := Plan(c, s, f)
	total := f.Candidates
	for _, p := range files {
		if p.Counts {
			total++
		}
	}
	if f.Latched || total <= FuseFloor || total == f.Candidates {
		return files, nil
	}
	rows, err := live(total * FuseShare)
	if err != nil || rows >= total*FuseShare {
		return files, err
	}
	f.Latched = true
	return Plan(c, s, f), nil
}

// LatchedBy is why the fuse was latched by a call.
func LatchedBy(candidates int64) string {
	return fmt.Sprintf("%d files without a signed deletion answered 404 within a day", candidates)
}
