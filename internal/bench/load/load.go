// Package load makes load on an HTTP address and counts what comes back: closed loops
// for throughput, open loops with a schedule for latency.
//
// It is apart because it runs in a process of its own, so that the side under test
// neither shares a heap with who measures it nor waits for it. Its one invariant: in
// an open loop every latency begins when the request was due by the schedule, whatever
// kept it from being sent, so that a server that stalls cannot make the load wait with
// it and look well (coordinated omission).
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/trueup/trueup/internal/bench/histogram"
)

// Kind is what the requests are.
type Kind string

const (
	Webhook Kind = "webhook" // signed, as ImageKit sends them
	Report  Kind = "report"  // POST /save-metadata with a token
)

// Job is one slice of load. It travels to the other process as JSON.
type Job struct {
	Kind Kind `json:"kind"`
	// Address is host:port of the listener, over plain HTTP/1.1.
	Address string `json:"address"`
	// Secret signs webhooks; Token stands behind reports.
	Secret string `json:"secret,omitempty"`
	Token  string `json:"token,omitempty"`
	// Connections are kept alive; each has one request under way at a time.
	Connections int `json:"connections"`
	// Warm comes before For and is not counted.
	Warm time.Duration `json:"warm"`
	For  time.Duration `json:"for"`
	// Rate is the arrivals a second of an open loop, at random as independent senders
	// make them; zero is a closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Patience is how long an arrival waits for a free connection before it is given
	// up, in an open loop; zero waits for as long as it takes.
	Patience time.Duration `json:"patience,omitempty"`
	// Seed of the schedule and of invented fileIds: two jobs with the same one name the
	// same files.
	Seed uint64 `json:"seed"`
	// Files are named in turn; none invents them.
	Files []string `json:"files,omitempty"`
	// Database, where given, is asked for the row of each file: Visible then counts how
	// long that took. It needs an open loop and as many Files as there are arrivals.
	Database string `json:"database,omitempty"`
}

// Result is what a job saw within For.
type Result struct {
	// Status counts the answers; 0 stands for a connection that broke.
	Status map[int]int64 `json:"status"`
	// Seconds is how long was counted.
	Seconds float64 `json:"seconds"`
	// Took is until the answer, of answers 2xx: since the request was sent in a closed
	// loop, since it was due in an open one. Refused is the same of the other answers.
	Took    histogram.Histogram `json:"took"`
	Refused histogram.Histogram `json:"refused"`
	// Sent is Took without the wait for a free connection: what the server alone had to
	// do with.
	Sent histogram.Histogram `json:"sent"`
	// Visible is until the row stood in the table.
	Visible histogram.Histogram `json:"visible"`
	// GivenUp arrivals found no free connection within Patience and were not sent.
	GivenUp int64 `json:"givenUp"`
	// Failure is the first connection that broke, in words.
	Failure string `json:"failure,omitempty"`
}

// Accepted is the number of answers 2xx.
func (r *Result) Accepted() (n int64) {
	for status, count := range r.Status {
		if status/100 == 2 {
			n += count
		}
	}
	return n
}

// PerSecond is the rate of answers 2xx.
func (r *Result) PerSecond() float64 { return float64(r.Accepted()) / r.Seconds }

// Only returns an error unless every answer was one of these.
func (r *Result) Only(statuses ...int) error {
	for status, n := range r.Status {
		good := false
		for _, s := range statuses {
			good = good || s == status
		}
		if !good {
			return fmt.Errorf("%d answers were %d %s", n, status, r.Failure)
		}
	}
	return nil
}

func (r *Result) merge(o *tally) {
	if r.Status == nil {
		r.Status = map[int]int64{}
	}
	for status, n := range o.status {
		r.Status[status] += n
	}
	r.Took.Merge(&o.took)
	r.Refused.Merge(&o.refused)
	r.Sent.Merge(&o.sent)
	r.Visible.Merge(&o.visible)
	r.GivenUp += o.givenUp
	if r.Failure == "" {
		r.Failure = o.failure
	}
}

// Serve is the other process: it reads one Job from in, runs it, and writes its Result
// to out. When in ends before the job does, whoever asked has gone and so does it.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var j Job
	dec := json.NewDecoder(in)
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	result, err := j.Run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// Run runs the job here.
func (j *Job) Run(ctx context.Context) (*Result, error) {
	if j.Connections < 1 || j.For <= 0 {
		return nil, errors.New("load: a job needs connections and a time")
	}
	made, err := j.requests(time.Now())
	if err != nil {
		return nil, err
	}
	if j.Rate > 0 {
		return j.open(ctx, made)
	}
	return j.closed(ctx, made)
}
