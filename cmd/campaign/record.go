package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// record is the line that a campaign leaves behind.
type record struct {
	Campaign   string           `json:"campaign"`
	Commit     string           `json:"commit"`
	Seed       uint64           `json:"seed"`
	N          int              `json:"n"`
	Counts     map[string]int64 `json:"counts"`
	Violations []string         `json:"violations"`
	Cells      map[string]int64 `json:"cells,omitempty"`
	Took       string           `json:"took"`
}

func (r record) append(file string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

func read(file string) ([]record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var out []record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, r)
	}
	return out, lines.Err()
}

// lines counts the records of a file; none when it is not there.
func lines(file string) int {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return bytes.Count(content, []byte("\n"))
}

// join adds up what the lanes of one campaign have recorded. A lane without a record has
// not ended as it should.
func join(files []string) (record, error) {
	sum := record{Counts: map[string]int64{}, Cells: map[string]int64{}, Violations: []string{}}
	var took time.Duration
	for _, file := range files {
		records, err := read(file)
		if err != nil {
			return sum, fmt.Errorf("a lane left no record: %w", err)
		}
		if len(records) != 1 {
			return sum, fmt.Errorf("a lane left %d records, want 1", len(records))
		}
		r := records[0]
		sum.Campaign, sum.Commit = r.Campaign, r.Commit
		sum.N += r.N
		sum.Violations = append(sum.Violations, r.Violations...)
		add(sum.Counts, r.Counts)
		add(sum.Cells, r.Cells)
		if d, err := time.ParseDuration(r.Took); err == nil {
			took = max(took, d)
		}
	}
	sum.Took = took.Round(time.Second).String()
	return sum, nil
}

func add(to, from map[string]int64) {
	for k, v := range from {
		to[k] += v
	}
}

// table prints the newest record of each campaign and size as Markdown.
func table(file string, out io.Writer) error {
	records, err := read(file)
	if err != nil {
		return err
	}
	newest := map[string]record{}
	var names []string
	for _, r := range records {
		if _, ok := newest[r.Campaign]; !ok {
			names = append(names, r.Campaign)
		}
		newest[r.Campaign] = r
	}
	var rows strings.Builder
	rows.WriteString("| campaign | rounds | counts | violations | seed | commit | took |\n| --- | ---: | --- | ---: | ---: | --- | ---: |\n")
	for _, name := range names {
		r := newest[name]
		fmt.Fprintf(&rows, "| %s | %d | %s | %d | %d | %.12s | %s |\n", r.Campaign, r.N, r.headline(), len(r.Violations), r.Seed, r.Commit, r.Took)
	}
	_, err = io.WriteString(out, rows.String())
	return err
}

// telling is which counts of a campaign its row in the table shows, in order; the record
// has all of them. Nil: the row shows all of them, too.
func telling(campaign string) []string {
	switch campaign {
	case "simulation":
		return []string{"steps", "I1.acknowledged", "I13.requests", "I2.rows", "I7.tombstones", "I9.letters", "replayed twice"}
	case "processes":
		return []string{"faults", "installations", "acts", "sent", "acknowledged"}
	case "powercut-r1", "powercut-r3":
		return []string{"cuts", "acknowledged", "lost", "broken"}
	case "powercut-r1-control-queue", "powercut-r3-control-queue":
		return []string{"cuts", "bitten", "acknowledged", "lost"}
	case "powercut-r1-control-database":
		return []string{"cuts", "bitten", "broken"}
	case "million":
		return []string{"repeats", "acknowledged", "rows", "dead_letters", "acknowledged_poison", "rows_changed_by_second_replay"}
	case "soak":
		return []string{"faults", "stored", "done", "superseded", "rejected", "dead", "pending", "audits"}
	}
	return nil
}

func (r record) headline() string {
	var counts []string
	keys := telling(r.Campaign)
	if keys == nil {
		keys = slices.Sorted(maps.Keys(r.Counts))
	}
	for _, k := range keys {
		counts = append(counts, fmt.Sprintf("%s %d", k, r.Counts[k]))
	}
	if n := len(r.Cells); n > 0 {
		counts = append(counts, fmt.Sprintf("%d cells", n))
	}
	return strings.Join(counts, ", ")
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
