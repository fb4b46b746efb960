package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"time"
)

var executed = regexp.MustCompile(`execs: (\d+)`)

// fuzzAll runs one target after the other, each with -n executions on as many lanes. Each
// is recorded by itself, by the fuzzer's own count: a parser that changes is fuzzed anew,
// and not all the others with it.
func (c campaign) fuzzAll(ctx context.Context, o options, out io.Writer) error {
	if o.n == 0 {
		o.n = 100_000
	}
	failed := []string{}
	for _, target := range c.fuzz {
		if len(o.extra) > 0 && !slices.Contains(o.extra, target.name) {
			continue
		}
		r, err := c.fuzzOne(ctx, o, target, out)
		if err == nil {
			err = r.append(o.record)
		}
		if err != nil {
			return err
		}
		failed = append(failed, r.Violations...)
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %v", failed)
	}
	return nil
}

func (c campaign) fuzzOne(ctx context.Context, o options, target target, out io.Writer) (record, error) {
	r := record{Campaign: c.name + " " + target.name, N: o.n, Counts: map[string]int64{}, Violations: []string{}, Commit: commit(ctx)}
	began := time.Now()
	var said bytes.Buffer
	cmd := command(ctx, io.MultiWriter(out, &said), "go", "test", "-run=^$", "-fuzz=^"+target.name+"$", fmt.Sprintf("-fuzztime=%dx", o.n),
		"-fuzzminimizetime=100x", // the default is a minute for each input that is interesting
		"-parallel", strconv.Itoa(o.lanes), target.pkg)
	if err := cmd.Run(); err != nil {
		r.Violations = append(r.Violations, target.pkg+" "+target.name)
	}
	if all := executed.FindAllSubmatch(said.Bytes(), -1); len(all) > 0 {
		n, err := strconv.ParseInt(string(all[len(all)-1][1]), 10, 64)
		if err != nil {
			return r, err
		}
		r.Counts["executions"] = n
	}
	r.Took = time.Since(began).Round(time.Second).String()
	return r, nil
}
