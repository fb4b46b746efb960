package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// ImageKit counts calls by the second: all of one second's may come at once.
const (
	limitPerSecond = 40
	limitBurst     = 40
	limitedFiles   = 20_000
)

// verify measures how often ImageKit is asked, and how fast a backlog drains under its
// limit.
func (s *stage) verify(ctx context.Context) error {
	library, err := s.account(ctx)
	if err != nil {
		return err
	}
	defer func() { s.check(library.close()) }()
	database, err := s.database(ctx)
	if err != nil {
		return err
	}
	if err := s.callsInBacklog(ctx, database, library); err != nil {
		return err
	}
	if err := s.callsLive(ctx, database, library); err != nil {
		return err
	}
	if s.Short {
		return nil
	}
	return s.underLimit(ctx, database, library)
}

// callsInBacklog counts calls per file of two backlogs: one that came as a flood, and
// one that trickled in while the worker was away, an envelope each.
func (s *stage) callsInBacklog(ctx context.Context, database string, library *account) error {
	n := 20_000
	if s.Short {
		n = 2_000
	}
	for _, b := range []struct {
		name        string
		perEnvelope int
		n           int
	}{{"packed as in a flood", asIngestPacks, n}, {"one event per envelope", 1, n / 4}} {
		files, err := library.generate(ctx, b.n)
		if err != nil {
			return err
		}
		o, err := s.backlog(ctx, database, library, files, b.perEnvelope, 0)
		if err != nil {
			return err
		}
		s.say("  backlog %s: %d calls for %d files", b.name, o.calls, b.n)
		s.add(alone("ImageKit calls per verified file, backlog, "+b.name, "calls", []float64{float64(o.calls) / float64(b.n)}, valueAtMost(0.05)))
	}
	return nil
}

// callsLive counts calls per file where events come one by one to a worker that has
// nothing else to do.
func (s *stage) callsLive(ctx context.Context, database string, library *account) error {
	n := 500
	if s.Short {
		n = 100
	}
	files, err := library.generate(ctx, n+1)
	if err != nil {
		return err
	}
	w, err := s.service(ctx, database, library)
	if err != nil {
		return err
	}
	defer w.close()
	// The first one is not counted: with it the turn begins, and its probe.
	if err := w.begin(ctx, 1); err != nil {
		return err
	}
	if err := w.one(ctx, files[0]); err != nil {
		return err
	}
	before, err := library.calls(ctx)
	if err != nil {
		return err
	}
	for _, f := range files[1:] {
		w.watch.goal++
		if err := w.one(ctx, f); err != nil {
			return err
		}
	}
	after, err := library.calls(ctx)
	if err != nil {
		return err
	}
	s.say("  live: %d calls for %d files", after-before, n)
	s.add(alone("ImageKit calls per verified file, live", "calls", []float64{float64(after-before) / float64(n)}, valueAtMost(1)))
	return nil
}

// one publishes a webhook about f and waits for its end.
func (w *work) one(ctx context.Context, f stored) error {
	e, err := hint(f, time.Now())
	if err != nil {
		return err
	}
	if err := w.doors.Queue.Publish(ctx, []event.Event{e}); err != nil {
		return err
	}
	_, err = w.drained(ctx)
	return err
}

// underLimit measures the drain while ImageKit answers 40 calls a second, against a
// client that does nothing but search for as many files at once as the worker does,
// and waits as it is told.
func (s *stage) underLimit(ctx context.Context, database string, library *account) error {
	got, err := s.rounds(ctx,
		contender{"backlog under the limit", func(ctx context.Context, _ int) (sample, error) {
			files, err := library.generate(ctx, limitedFiles)
			if err != nil {
				return sample{}, err
			}
			if err := library.limit(ctx, limitPerSecond, limitBurst); err != nil {
				return sample{}, err
			}
			o, err := s.backlog(ctx, database, library, files, asIngestPacks, 0)
			return sample{value: limitedFiles / o.took.Seconds()}, errors.Join(err, library.unlimited(ctx))
		}},
		contender{"bare searches under the limit", func(ctx context.Context, _ int) (sample, error) {
			files, err := library.generate(ctx, 1000)
			if err != nil {
				return sample{}, err
			}
			if err := library.limit(ctx, limitPerSecond, limitBurst); err != nil {
				return sample{}, err
			}
			rate, err := library.searches(ctx, files, 2*s.Slice)
			return sample{value: rate}, errors.Join(err, library.unlimited(ctx))
		}})
	if err != nil {
		return err
	}
	s.add(compared(fmt.Sprintf("backlog drained under %d calls a second", limitPerSecond), "files/s", got.values(0), got.values(1), valueAtLeast(1500)))
	return nil
}

// searchChunk is how many files the worker asks for at once.
const searchChunk = 50

// searches asks for files in chunks for a while, one call after the other, and returns
// how many it was told of in a second.
func (a *account) searches(ctx context.Context, files []stored, during time.Duration) (perSecond float64, err error) {
	found, began := 0, time.Now()
	for at := 0; time.Since(began) < during; at += searchChunk {
		n, err := a.search(ctx, files[at%len(files):][:searchChunk])
		if err != nil {
			return 0, err
		}
		found += n
	}
	return float64(found) / time.Since(began).Seconds(), nil
}

// search asks once, and again after each 429.
func (a *account) search(ctx context.Context, files []stored) (int, error) {
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = strconv.Quote(f.ID)
	}
	query := url.QueryEscape(`type="file" AND id IN [` + strings.Join(ids, ",") + `]`)
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/v1/files?limit=1000&searchQuery="+query, nil)
		if err != nil {
			return 0, err
		}
		r.SetBasicAuth(benchPrivate, "")
		answer, err := a.client.Do(r)
		if err != nil {
			return 0, err
		}
		raw, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		switch {
		case err != nil:
			return 0, err
		case answer.StatusCode == http.StatusOK:
			var page []stored
			return len(files), json.Unmarshal(raw, &page)
		case answer.StatusCode != http.StatusTooManyRequests:
			return 0, fmt.Errorf("search: %s: %.200s", answer.Status, raw)
		}
		if err := waitAsTold(ctx, answer.Header); err != nil {
			return 0, err
		}
	}
}

func waitAsTold(ctx context.Context, h http.Header) error {
	ms, err := strconv.Atoi(h.Get("X-RateLimit-Reset"))
	if err != nil {
		return err
	}
	return pause(ctx, time.Duration(ms)*time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
