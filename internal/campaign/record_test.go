package campaign

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// record is what a campaign leaves behind: one line of JSON, so that a table can be
// made of many.
type record struct {
	Campaign   string           `json:"campaign"`
	Commit     string           `json:"commit"`
	Seed       uint64           `json:"seed"`
	N          int              `json:"n"`
	Counts     map[string]int64 `json:"counts"`
	Violations []string         `json:"violations"`
	Cells      map[string]int64 `json:"cells"`
	Took       string           `json:"took"`
}

// write logs the line and appends it to the file named by -record.
func (r record) write(t testing.TB) {
	t.Helper()
	if r.Violations == nil {
		r.Violations = []string{}
	}
	r.Commit = commit(t)
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	if *recordFlag == "" {
		return
	}
	f, err := os.OpenFile(*recordFlag, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// commit is the tree's, "-dirty" added where files differ from it; empty outside a
// repository.
func commit(t testing.TB) string {
	out, err := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
