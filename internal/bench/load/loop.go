package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trueup/trueup/internal/bench/histogram"
)

// tally is what one connection has seen.
type tally struct {
	status                       map[int]int64
	took, refused, sent, visible histogram.Histogram
	givenUp                      int64
	failure                      string
}

func (t *tally) count(status int, took time.Duration, err error) {
	if t.status == nil {
		t.status = map[int]int64{}
	}
	t.status[status]++
	switch {
	case err != nil && t.failure == "":
		t.failure = err.Error()
	case status/100 == 2:
		t.took.Record(took)
	default:
		t.refused.Record(took)
	}
}

// closed sends on each connection as soon as the answer before is there.
func (j *Job) closed(ctx context.Context, made *requests) (*Result, error) {
	begin := time.Now().Add(j.Warm)
	end := begin.Add(j.For)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var next atomic.Uint64
	tallies := make([]tally, j.Connections)
	var all sync.WaitGroup
	for i := range tallies {
		all.Go(func() {
			c, t := &conn{address: j.Address}, &tallies[i]
			defer c.close()
			var buf []byte
			for ctx.Err() == nil {
				buf = made.appendRequest(buf[:0], next.Add(1)-1)
				sent := time.Now()
				status, err := c.do(ctx, buf)
				// Only what was answered within the time counts, so the rate is that of the
				// time and not of the connections.
				if now := time.Now(); now.After(begin) && now.Before(end) {
					t.count(status, now.Sub(sent), err)
				}
			}
		})
	}
	all.Wait()
	return j.result(tallies), context.Cause(parentOnly(ctx))
}

// parentOnly is a context that is done only if ctx ended for another reason than its
// deadline.
func parentOnly(ctx context.Context) context.Context {
	if ctx.Err() == context.DeadlineExceeded {
		return context.Background()
	}
	return ctx
}

func (j *Job) result(tallies []tally) *Result {
	r := &Result{Status: map[int]int64{}, Seconds: j.For.Seconds()}
	for i := range tallies {
		r.merge(&tallies[i])
	}
	return r
}

// arrival is one request of the schedule.
type arrival struct {
	n       uint64
	due     time.Time
	counted bool
}

// open sends by the schedule, on whichever connection is free. It returns when every
// arrival has come to its end.
func (j *Job) open(ctx context.Context, made *requests) (*Result, error) {
	rows, err := j.watcher(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.close()
	schedule := j.schedule(time.Now().Add(20 * time.Millisecond))
	due := make(chan arrival, len(schedule))
	tallies := make([]tally, j.Connections)
	var all sync.WaitGroup
	for i := range tallies {
		all.Go(func() {
			s := sender{job: j, made: made, rows: rows, conn: conn{address: j.Address}, tally: &tallies[i]}
			defer s.conn.close()
			for a := range due {
				s.send(ctx, a)
			}
		})
	}
	err = release(ctx, schedule, due)
	all.Wait()
	return j.result(tallies), err
}

// schedule is every arrival, with gaps as independent senders make them.
func (j *Job) schedule(from time.Time) []arrival {
	r := rand.New(rand.NewPCG(j.Seed, 2))
	counted, end := from.Add(j.Warm), from.Add(j.Warm+j.For)
	var all []arrival
	for at := from; at.Before(end); at = at.Add(time.Duration(r.ExpFloat64() / j.Rate * float64(time.Second))) {
		all = append(all, arrival{n: uint64(len(all)), due: at, counted: !at.Before(counted)})
	}
	return all
}

// release hands each arrival over when it is due, never later than the timer's own
// delay, which counts as latency.
func release(ctx context.Context, schedule []arrival, due chan<- arrival) error {
	defer close(due)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, a := range schedule {
		if wait := time.Until(a.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		due <- a // there is room for all
	}
	return nil
}

// sender is one connection of an open loop.
type sender struct {
	job   *Job
	made  *requests
	rows  *watcher
	conn  conn
	tally *tally
	buf   []byte
}

func (s *sender) send(ctx context.Context, a arrival) {
	if p := s.job.Patience; p > 0 && time.Since(a.due) > p {
		if a.counted {
			s.tally.givenUp++
		}
		return
	}
	s.buf = s.made.appendRequest(s.buf[:0], a.n)
	sent := time.Now()
	status, err := s.conn.do(ctx, s.buf)
	done := time.Now()
	if !a.counted {
		return
	}
	s.tally.count(status, done.Sub(a.due), err)
	if status/100 == 2 {
		s.tally.sent.Record(done.Sub(sent))
	}
	if s.rows != nil && status/100 == 2 {
		if s.rows.await(ctx, s.made.fileID(a.n)) == nil {
			s.tally.visible.Record(time.Since(a.due))
		}
	}
}
