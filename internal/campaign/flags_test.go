package campaign

import (
	"flag"
	"time"
)

// What every campaign can be asked for. A zero means the test's own choice, which is
// what CI runs.
var (
	seedFlag     = flag.Uint64("seed", 1, "the first seed; the following rounds count up from it")
	nFlag        = flag.Int("n", 0, "how many rounds")
	durationFlag = flag.Duration("duration", 0, "how long, for campaigns that are measured in time")
	recordFlag   = flag.String("record", "", "file to which each campaign appends one line of JSON")
)

// rounds is -n, or ci where it was not given.
func rounds(ci int) int {
	if *nFlag > 0 {
		return *nFlag
	}
	return ci
}

// lasting is -duration, or ci where it was not given.
func lasting(ci time.Duration) time.Duration {
	if *durationFlag > 0 {
		return *durationFlag
	}
	return ci
}
