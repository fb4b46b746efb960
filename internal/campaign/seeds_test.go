package campaign

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// keptSeeds are those of a campaign that have found something, from testdata/seeds: a
// name, the seed, and what it found, one a line. They are run first for ever.
func keptSeeds(t testing.TB, campaign string) (seeds []uint64) {
	t.Helper()
	name := filepath.Join("testdata", "seeds", campaign+".txt")
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 3 {
			t.Fatalf("%s: %q is not a name, a seed and what it found", name, lines.Text())
		}
		seed, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// roundSeeds are the kept seeds and then n from -seed on, none twice. A run of one round
// is somebody's who wants that one.
func roundSeeds(t testing.TB, campaign string, n int) []uint64 {
	t.Helper()
	var seeds []uint64
	if n > 1 {
		seeds = keptSeeds(t, campaign)
	}
	for i := range n {
		if seed := *seedFlag + uint64(i); !slices.Contains(seeds, seed) {
			seeds = append(seeds, seed)
		}
	}
	return seeds
}
