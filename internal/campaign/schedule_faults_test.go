package campaign

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// drawnFault is one thing that breaks, and for how long.
type drawnFault struct {
	At, Hold time.Duration
	Cell     string // of the matrix: component/…/fault
	Part     string // the unit it befalls, or the link
	N        int
}

func (f drawnFault) String() string {
	return fmt.Sprintf("%6s for %s: %s on %s n %d", f.At, f.Hold, f.Cell, f.Part, f.N)
}

// component is a kind of part and how many of them there are.
type component struct {
	kind  string
	parts []string
}

func components(nodes int) []component {
	return []component{
		{"ingest", []string{"ingest1", "ingest2"}}, {"worker", []string{"worker1", "worker2"}},
		{"postgres", []string{"postgres"}}, {"pgbouncer", []string{"pgbouncer"}}, {"nats", numbered("nats", nodes)},
	}
}

func numbered(name string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s%d", name, i+1))
	}
	return all
}

// linkKinds are the ways between parts, by kind.
func linkKinds(nodes int) []component {
	between := func(from, to []string) (all []string) {
		for _, a := range from {
			for _, b := range to {
				if a != b {
					all = append(all, a+"-"+b)
				}
			}
		}
		return all
	}
	ingests, workers, servers := numbered("ingest", 2), numbered("worker", 2), numbered("nats", nodes)
	kinds := []component{
		{"client-ingest", between([]string{"client"}, ingests)}, {"webhook-ingest", between([]string{"webhook"}, ingests)},
		{"ingest-nats", between(ingests, servers)}, {"worker-nats", between(workers, servers)},
		{"worker-pgbouncer", between(workers, []string{"pgbouncer"})}, {"pgbouncer-postgres", []string{"pgbouncer-postgres"}},
		{"worker-imagekit", []string{"worker-imagekit"}},
	}
	if nodes > 1 {
		kinds = append(kinds, component{"nats-nats", between(servers, servers)})
	}
	return kinds
}

var toxicKinds = []string{"latency", "bandwidth", "timeout", "reset_peer", "slicer", "limit_data", "slow_close"}

// Upstream carries requests, downstream replies.
var streams = []string{"upstream", "downstream"}

// imagekitFaults are answers that ImageKit gives on a bad day.
var imagekitFaults = []string{"429-reset", "429-bare", "500", "503", "html", "truncated", "hang", "close", "empty", "404-flicker"}

var imagekitCalls = []string{"details", "list"}

// clusterFaults need three servers.
var clusterFaults = []string{"leader-kill9", "two-of-three", "partition", "leader-freeze"}

// faultCells is every cell that a schedule with so many servers can reach, in order.
func faultCells(nodes int) []string {
	var cells []string
	for _, c := range components(nodes) {
		cells = append(cells, "process/"+c.kind+"/kill9", "process/"+c.kind+"/freeze")
	}
	cells = append(cells, "process/postgres/immediate")
	for _, l := range linkKinds(nodes) {
		for _, k := range toxicKinds {
			for _, s := range streams {
				cells = append(cells, "link/"+l.kind+"/"+k+"/"+s)
			}
		}
		cells = append(cells, "link/"+l.kind+"/down")
	}
	for _, call := range imagekitCalls {
		for _, f := range imagekitFaults {
			if call == "list" && f == "404-flicker" {
				continue
			}
			cells = append(cells, "imagekit/"+call+"/"+f)
		}
	}
	if nodes > 1 {
		for _, f := range clusterFaults {
			cells = append(cells, "cluster/nats/"+f)
		}
	}
	return cells
}

// trafficCells is what the schedules' acts can reach.
func trafficCells() []string {
	return []string{"webhook/dropped", "webhook/duplicate", "webhook/delayed", "webhook/forged", "webhook/replayed", "webhook/untrue",
		"client/report", "client/duplicate", "client/foreign", "client/unknown", "client/array", "client/refused", "client/unanswered",
		"library/uploaded", "library/overwritten", "library/moved", "library/edited", "library/deleted",
		"sql/update", "sql/owner", "sql/delete", "sql/bogus", "sql/adopt"}
}

// faults draws five to nine. Two come from the list of all cells by turns, so that some
// hundred seeds reach every cell; the others by chance, with processes and ImageKit
// more often than any one link.
func (d *dice) faults(s *schedule) []drawnFault {
	cells := faultCells(s.Nodes)
	turn := int(s.Seed - s.Seed/4)
	if s.Nodes > 1 {
		turn = int(s.Seed / 4)
	}
	drawn := []string{cells[2*turn%len(cells)], cells[(2*turn+1)%len(cells)]}
	for len(drawn) < 5+d.IntN(5) {
		group := pick(d, []string{"process/", "process/", "link/", "link/", "imagekit/", "cluster/"})
		some := slices.DeleteFunc(slices.Clone(cells), func(c string) bool { return !strings.HasPrefix(c, group) })
		if len(some) > 0 {
			drawn = append(drawn, pick(d, some))
		}
	}
	faults := make([]drawnFault, len(drawn))
	for i, cell := range drawn {
		faults[i] = d.fault(cell, s)
	}
	slices.SortStableFunc(faults, func(a, b drawnFault) int { return cmp.Compare(a.At, b.At) })
	return faults
}

func (d *dice) fault(cell string, s *schedule) drawnFault {
	f := drawnFault{Cell: cell, At: d.between(0, s.Lasts*4/5), Hold: d.between(100*time.Millisecond, 2500*time.Millisecond), N: d.IntN(1 << 16)}
	kind := strings.Split(cell, "/")[1]
	for _, c := range append(components(s.Nodes), linkKinds(s.Nodes)...) {
		if c.kind == kind {
			f.Part = pick(d, c.parts)
		}
	}
	switch {
	case strings.HasSuffix(cell, "/404-flicker"):
		f.Hold = d.between(100*time.Millisecond, 500*time.Millisecond) // well below ABSENT_CONFIRM
	case cell == "process/worker/freeze" && d.chance(0.5):
		f.Hold = d.between(turnTTL+500*time.Millisecond, 5*time.Second) // another takes the turn meanwhile
	case strings.HasSuffix(cell, "freeze") && d.chance(0.2):
		f.Hold = d.between(2*time.Second, 5*time.Second)
	}
	return f
}

// prompt reports whether ImageKit's answers reach the active worker at once: only then
// can it be held against it what it did after one.
func (s schedule) prompt() bool {
	return !slices.ContainsFunc(s.Faults, func(f drawnFault) bool {
		return strings.HasPrefix(f.Cell, "process/worker/") || strings.HasPrefix(f.Cell, "link/worker-imagekit/")
	})
}

// toxicOf is what a link's cell asks for.
func (f drawnFault) toxicOf() toxic {
	parts := strings.Split(f.Cell, "/")
	if len(parts) < 4 {
		return toxic{Kind: "down"}
	}
	x := toxic{Kind: parts[2], Stream: parts[3]}
	switch x.Kind {
	case "latency":
		x.Attributes = map[string]any{"latency": 20 + f.N%700, "jitter": f.N % 200}
	case "bandwidth":
		x.Attributes = map[string]any{"rate": 1 + f.N%20} // KB/s
	case "timeout":
		x.Attributes = map[string]any{"timeout": f.N % 2 * 500} // 0: data vanishes, the connection stays
	case "reset_peer":
		x.Attributes = map[string]any{"timeout": f.N % 300}
	case "slicer":
		x.Attributes = map[string]any{"average_size": 8 + f.N%200, "size_variation": 4, "delay": 100 * (1 + f.N%40)} // µs
	case "limit_data":
		x.Attributes = map[string]any{"bytes": 50 + f.N%8000}
	case "slow_close":
		x.Attributes = map[string]any{"delay": 200 + f.N%1500}
	}
	return x
}

// imagekitFault is what an imagekit cell asks the emulator for.
func (f drawnFault) imagekitFault(fileID string) map[string]any {
	parts := strings.Split(f.Cell, "/")
	path := "/v1/files/*/details"
	if parts[1] == "list" {
		path = "/v1/files"
	}
	fault := map[string]any{"method": "GET", "path": path, "times": 1 + f.N%6}
	set := func(k string, v any) { fault[k] = v }
	switch parts[2] {
	case "429-reset":
		set("status", 429)
		set("headers", map[string]string{"X-RateLimit-Limit": "40", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(200 + f.N%800)})
		set("times", 1)
	case "429-bare":
		set("status", 429)
		set("times", 1+f.N%2)
	case "500":
		set("status", 500)
	case "503":
		set("status", 503)
		set("body", map[string]any{"message": "planted"})
	case "html":
		set("status", 200)
		set("body", "<html><body>maintenance</body></html>")
	case "truncated":
		set("status", 200)
		set("body", `[{"fileId":"0123456789`)
	case "hang":
		set("latency", "1500ms")
		set("times", 1+f.N%2)
	case "close":
		set("close", true)
	case "empty":
		set("status", 200)
		set("body", "")
	case "404-flicker":
		set("status", 404)
		set("body", map[string]any{"message": "The requested file does not exist.", "help": "planted"})
		set("fileId", fileID)
		set("times", 1)
	}
	return fault
}
