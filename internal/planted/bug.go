package planted

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/tools/txtar"
)

// bug is one wrong build.
type bug struct {
	Name      string
	Says      string   // what is wrong
	Invariant string   // what it breaks
	Tests     []suite  // those that must notice, the quickest first; one that does is enough
	Quick     bool     // its first test needs no service: CI plants it
	Files     []change // what to read otherwise
}

// suite is some tests of one package.
type suite struct {
	Package string
	Run     string   // as -run takes it
	Args    []string // more arguments of go test
}

// change is what is wrong in one file.
type change struct {
	File  string // from the module's root
	Hunks []hunk
}

type hunk struct{ old, wrong []byte }

// readBugs reads every bug of a folder, in the order of their names.
func readBugs(folder string) ([]bug, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil {
		return nil, err
	}
	bugs := make([]bug, 0, len(names))
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b, err := readBug(strings.TrimSuffix(filepath.Base(name), ".txt"), content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		bugs = append(bugs, b)
	}
	return bugs, nil
}

// readBug reads a header of "key: value" lines and, for each file, the lines to replace
// between <<<<, ==== and >>>>.
func readBug(name string, content []byte) (bug, error) {
	b, archive := bug{Name: name}, txtar.Parse(content)
	for line := range strings.Lines(string(archive.Comment)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := b.header(line); err != nil {
			return b, err
		}
	}
	for _, f := range archive.Files {
		hunks, err := readHunks(f.Data)
		if err != nil {
			return b, fmt.Errorf("%s: %w", f.Name, err)
		}
		b.Files = append(b.Files, change{f.Name, hunks})
	}
	if b.Says == "" || b.Invariant == "" || len(b.Tests) == 0 || len(b.Files) == 0 {
		return b, fmt.Errorf("says, invariant, a test and a file are required")
	}
	return b, nil
}

func (b *bug) header(line string) error {
	key, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch key {
	case "says":
		b.Says = value
	case "invariant":
		b.Invariant = value
	case "quick":
		b.Quick = value == "yes"
	case "test":
		words := strings.Fields(value)
		if len(words) < 2 {
			return fmt.Errorf("test %q: want a package and what to run in it", value)
		}
		b.Tests = append(b.Tests, suite{words[0], words[1], words[2:]})
	default:
		return fmt.Errorf("nobody knows the header %q", key)
	}
	return nil
}

func readHunks(data []byte) ([]hunk, error) {
	var hunks []hunk
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		before, after, ok := bytes.Cut(rest, []byte("<<<<\n"))
		if !ok || len(bytes.TrimSpace(before)) > 0 {
			return nil, fmt.Errorf("want <<<< before %.40q", rest)
		}
		body, more, ok := bytes.Cut(after, []byte(">>>>\n"))
		if !ok {
			return nil, fmt.Errorf("want >>>> after %.40q", after)
		}
		old, wrong, ok := bytes.Cut(body, []byte("====\n"))
		if !ok || len(old) == 0 {
			return nil, fmt.Errorf("want ==== in %.40q", body)
		}
		hunks, rest = append(hunks, hunk{old, wrong}), more
	}
	return hunks, nil
}

// wrong is the file's content with the bug in it. What is replaced must stand there
// exactly once, or the tree has moved on and the bug with it.
func (c change) wrong(root string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(root, c.File))
	if err != nil {
		return nil, err
	}
	for _, h := range c.Hunks {
		if n := bytes.Count(content, h.old); n != 1 {
			return nil, fmt.Errorf("%s: %q stands there %d times, want once", c.File, h.old, n)
		}
		content = bytes.Replace(content, h.old, h.wrong, 1)
	}
	return content, nil
}

// overlay writes the wrong files into folder, with the file that tells the compiler to
// read them instead, and returns that file's path.
func (b *bug) overlay(root, folder string) (string, error) {
	replace := map[string]string{}
	for i, c := range b.Files {
		content, err := c.wrong(root)
		if err != nil {
			return "", err
		}
		to := filepath.Join(folder, fmt.Sprintf("%d_%s", i, filepath.Base(c.File)))
		if err := os.WriteFile(to, content, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, c.File)] = to
	}
	encoded, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "overlay.json")
	return path, os.WriteFile(path, encoded, 0o600)
}
