package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine is where the figures come from.
type Machine struct {
	System     string  `json:"system"`
	Processor  string  `json:"processor,omitempty"`
	Processors int     `json:"processors"`
	MemoryMB   float64 `json:"memoryMB,omitempty"`
	Go         string  `json:"go"`
	PostgreSQL string  `json:"postgresql,omitempty"`
	Node       string  `json:"node,omitempty"`
	// LoadBefore and LoadAfter are the system's load averages of one minute; nothing of
	// ours ran before.
	LoadBefore *float64 `json:"loadBefore"`
	LoadAfter  *float64 `json:"loadAfter"`
}

func thisMachine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(), Go: runtime.Version(), LoadBefore: loadAverage()}
	m.Processor = field("/proc/cpuinfo", "model name")
	if kb, err := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		m.MemoryMB = kb / 1024
	}
	return m
}

func (m Machine) String() string {
	parts := []string{fmt.Sprintf("%d × %s", m.Processors, m.Processor), m.System, m.Go}
	if m.MemoryMB > 0 {
		parts = append(parts, fmt.Sprintf("%.0f MB", m.MemoryMB))
	}
	if m.PostgreSQL != "" {
		parts = append(parts, "PostgreSQL "+m.PostgreSQL)
	}
	if m.Node != "" {
		parts = append(parts, "Node "+m.Node)
	}
	if m.LoadBefore != nil {
		parts = append(parts, fmt.Sprintf("load average before: %.2f", *m.LoadBefore))
	}
	return strings.Join(parts, ", ")
}

// field is a value of one of the kernel's "name : value" files; empty where there is
// no such file.
func field(path, name string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func loadAverage() *float64 {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(raw), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return nil
	}
	return &v
}

// fsyncs is how many appends of 700 bytes the disk below dir confirms in a second, one
// after the other: what one message with its own fsync could reach at most.
func fsyncs(ctx context.Context, dir string, during time.Duration) (perSecond float64, err error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 700)
	n, began := 0, time.Now()
	for time.Since(began) < during && ctx.Err() == nil {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), context.Cause(ctx)
}
