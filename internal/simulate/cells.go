package simulate

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// A cell is one combination of a part and what goes wrong with it: part/fault or
// part/step/fault. A campaign that never reached one of them has a blind spot.

// sides are the ways in which a call of the database or the queue goes wrong.
var sides = []string{"failed-before", "failed-after", "slow", "killed-before", "killed-after"}

// doorCells are the calls that are made to fail, with the invariants that each strains.
// The methods behind a name are in steps.
var doorCells = map[string]string{
	"rows/turn":     "I5: two workers, one number",
	"rows/settle":   "I1 I4: a commit whose reply is lost is settled again",
	"rows/due":      "I1: retries are read again",
	"rows/trial":    "I15: a mark that survives a crash",
	"rows/fence":    "I5: a fence nobody used",
	"rows/canary":   "I7: no canary, no deletion",
	"rows/run":      "I2: a run goes on where it was",
	"rows/compare":  "I2 I7: half a comparison is none",
	"rows/findings": "I2 I16: a finding has one answer",
	"rows/repair":   "I2 I5: a repair twice is a repair once",
	"rows/brakes":   "I8: the fuse is read before it is trusted",
	"rows/poll":     "I2: a position is saved after what it vouches for",
	"rows/letters":  "I9 I10: jobs on dead letters are resumed",
	"rows/read":     "I12: a question that fails is told so",
	"queue/publish": "I1: stored or not, the sender repeats",
	"queue/next":    "I1: what is not acked comes again",
	"queue/ack":     "I1 I4: settled twice",
	"queue/turn":    "I5: a turn is lost while work goes on",
	"queue/notice":  "notices may be lost",
}

// imagekitFaults are what ImageKit does wrong, on looking up by id and on lists alike.
var imagekitFaults = map[string]string{
	"429-reset": "I13", "429-bare": "I13", "429-zero": "I13", "429-huge": "I13",
	"500": "I2", "502": "I2", "503": "I2",
	"html-200": "I3", "truncated": "I3", "empty-body": "I3", "wrong-type": "I3", "missing-fields": "I3 I7",
	"hang": "I15", "closed-before": "I2", "closed-after": "I2", "slow": "I5",
}

// otherCells are the rest, by what they strain.
var otherCells = map[string]string{
	"imagekit/details/404-flicker":    "I7: one 404 removes nothing",
	"imagekit/details/stale":          "I5: an old answer is put right again",
	"imagekit/list/lag":               "I5 I6: a listing of yesterday",
	"imagekit/list/empty":             "I7 I8: an empty listing deletes nothing",
	"imagekit/details/late-visible":   "I2: a file that is not there yet",
	"imagekit/account/revoked-401":    "I7 I8",
	"imagekit/account/restricted-403": "I7 I8",
	"imagekit/account/another":        "I7: everything answers 404",
	"imagekit/search/no-id":           "I2: searching by id refused",

	"process/ingest/kill9":  "I1",
	"process/worker/kill9":  "I1 I4 I9",
	"process/ingest/stop":   "I1",
	"process/worker/stop":   "I1",
	"process/worker/stall":  "I5: another takes the turn meanwhile",
	"process/ingest/clock":  "I1 I11: ten minutes wrong",
	"database/away":         "I1 I12: ingest goes on",
	"queue/full":            "I12: 503 and no loss",
	"network/request-lost":  "I1: the sender repeats",
	"network/answer-lost":   "I1 I4: accepted, and nobody knows",
	"client/duplicate":      "I4",
	"client/early":          "I2: reported before it is visible",
	"client/foreign":        "I11",
	"client/forged-id":      "I14 I16",
	"client/forged-token":   "I14",
	"client/array":          "I1",
	"client/rival":          "I11: the earliest claim wins",
	"client/forged-ticket":  "I11",
	"client/copied-ticket":  "I11",
	"webhook/dropped":       "I2",
	"webhook/duplicate":     "I4",
	"webhook/reordered":     "I4 I5 I6",
	"webhook/days-late":     "I6",
	"webhook/unknown-kind":  "I17",
	"webhook/replayed":      "I14: too old to be believed",
	"webhook/bad-signature": "I14",
	"webhook/retried":       "I1: the sender repeats after a 5xx",
	"upload/v1":             "I2",
	"upload/v2-ticket":      "I11",
	"upload/overwrite":      "I5",
	"upload/same-path":      "I6: deleted, and another file at its path",
	"upload/server":         "I2: from the dashboard, reported by nobody",
	"file/moved":            "I2",
	"file/renamed":          "I2",
	"file/edited":           "I2 I5",
	"file/deleted":          "I6 I7",
	"file/deleted-many":     "I8",
	"people/deleted-row":    "I2",
	"people/corrupted-row":  "I2",
	"people/inserted-row":   "I2 I11",
	"people/truncated":      "I2",
	"operator/replay":       "I10",
	"operator/replay-twice": "I10",
	"operator/recheck":      "I2",
	"operator/pause":        "I1",
	"operator/assign":       "I11",
	"operator/run":          "I2",
	"operator/plan-apply":   "I2 I8",
	"operator/cancel-run":   "I16",
	"fuse/latched":          "I8",
	"fuse/released-wrong":   "I8",
	"fuse/released-right":   "I8",
	"dead-letter/written":   "I9",
}

// Cells are the names of all of them, sorted.
func Cells() []string {
	var all []string
	for part := range doorCells {
		for _, side := range sides {
			all = append(all, part+"/"+side)
		}
	}
	for fault := range imagekitFaults {
		all = append(all, "imagekit/details/"+fault, "imagekit/list/"+fault)
	}
	all = append(all, slices.Collect(maps.Keys(otherCells))...)
	slices.Sort(all)
	return all
}

// Reached counts how often each cell was reached.
type Reached struct {
	mu     sync.Mutex // guards counts
	counts map[string]int64
	known  map[string]struct{}
}

// NewReached counts from zero.
func NewReached() *Reached {
	r := &Reached{counts: map[string]int64{}, known: map[string]struct{}{}}
	for _, c := range Cells() {
		r.known[c] = struct{}{}
	}
	return r
}

// Hit counts one; a name that is not in the table is a mistake in the driver.
func (r *Reached) Hit(cell string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[cell]; !ok {
		panic(fmt.Sprintf("simulate: %q is no cell", cell))
	}
	r.counts[cell]++
}

// Add takes over what another has counted.
func (r *Reached) Add(other *Reached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, n := range other.counts {
		r.counts[c] += n
	}
}

// Counts are all cells, reached or not.
func (r *Reached) Counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]int64, len(r.known))
	for c := range r.known {
		all[c] = r.counts[c]
	}
	return all
}

// Empty are the cells that nothing has reached, sorted.
func (r *Reached) Empty() []string {
	var none []string
	for c, n := range r.Counts() {
		if n == 0 {
			none = append(none, c)
		}
	}
	slices.Sort(none)
	return none
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
