package collect

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// ErrForgotten means that ImageKit's stand-in has dropped lines of a log before they
// were collected: collect more often.
var ErrForgotten = errors.New("lines of the log were dropped before they were collected")

// ImageKit collects from ImageKit's stand-in. Its logs keep a bounded number of lines,
// so a long campaign calls Collect now and then; what was collected is kept. Not for
// concurrent use.
type ImageKit struct {
	// Client and URL are how it is reached; URL has no trailing slash.
	Client *http.Client
	URL    string

	Truth    map[string]json.RawMessage
	History  []check.Change
	Requests []check.Request
	// Deliveries are the webhooks that it sent by itself, with their answers.
	Deliveries []check.Ack

	requests, history, deliveries int64 // last numbers collected
}

// Collect reads what the logs have since the last time, and the library as it is.
func (k *ImageKit) Collect(ctx context.Context) error {
	// The logs first: what happens meanwhile is in the truth at least.
	for _, read := range []func(context.Context) error{k.readRequests, k.readDeliveries, k.readHistory, k.readFiles} {
		if err := read(ctx); err != nil {
			return fmt.Errorf("collect from ImageKit: %w", err)
		}
	}
	// Lines are in the order in which they were answered.
	slices.SortStableFunc(k.Requests, func(a, b check.Request) int { return a.At.Compare(b.At) })
	return nil
}

func (k *ImageKit) get(ctx context.Context, path string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := k.Client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("GET %s answered %s", path, answer.Status)
	}
	return answer.Body, nil
}

// lines reads a log after the number n; each line has its own number in n.
func lines[T any](ctx context.Context, k *ImageKit, log string, last *int64, each func(*T)) error {
	body, err := k.get(ctx, "/_emulator/"+log+"?after="+strconv.FormatInt(*last, 10))
	if err != nil {
		return err
	}
	defer body.Close()
	var page struct {
		Items []json.RawMessage `json:"items"`
		Count int64             `json:"count"`
	}
	if err := json.NewDecoder(body).Decode(&page); err != nil {
		return err
	}
	for _, raw := range page.Items {
		var line struct {
			N int64 `json:"n"`
		}
		var v T
		if err := errors.Join(json.Unmarshal(raw, &line), json.Unmarshal(raw, &v)); err != nil {
			return err
		}
		if line.N != *last+1 {
			return fmt.Errorf("%s %d to %d: %w", log, *last+1, line.N-1, ErrForgotten)
		}
		*last = line.N
		each(&v)
	}
	if page.Count < *last {
		return fmt.Errorf("%s began anew at %d: %w", log, *last, ErrForgotten)
	}
	return nil
}

// took is a duration as text.
type took time.Duration

func (t *took) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*t = took(d)
	return err
}

func (k *ImageKit) readRequests(ctx context.Context) error {
	type line struct {
		At                                                           time.Time
		Took                                                         took
		Method, Path, Query, Endpoint, Body, Reset, Agent, RequestID string
		Status                                                       int
		Cut                                                          bool
	}
	return lines(ctx, k, "requests", &k.requests, func(l *line) {
		k.Requests = append(k.Requests, check.Request{
			At: l.At, Took: time.Duration(l.Took), Method: l.Method, Path: l.Path, Query: l.Query, Endpoint: l.Endpoint, Status: l.Status,
			Cut: l.Cut, Body: l.Body, Reset: milliseconds(l.Reset), RequestID: l.RequestID, Who: l.Agent,
		})
	})
}

// milliseconds is what a 429 said; zero for what is no wait.
func milliseconds(text string) time.Duration {
	ms, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(ms > 0) {
		return 0
	}
	return time.Duration(min(ms, 1e12) * float64(time.Millisecond))
}

func (k *ImageKit) readDeliveries(ctx context.Context) error {
	type line struct {
		At         time.Time
		Took       took
		ID, FileID string
		Status     int
		Body       json.RawMessage
	}
	return lines(ctx, k, "deliveries", &k.deliveries, func(l *line) {
		a := check.Ack{Door: check.Webhook, SentAt: l.At, Status: l.Status, Genuine: true, WebhookID: l.ID, FileID: l.FileID, Body: l.Body}
		if l.Status != 0 {
			a.AnsweredAt = l.At.Add(time.Duration(l.Took))
		}
		var told struct{ Type string }
		_ = json.Unmarshal(l.Body, &told) // the stand-in wrote it
		a.Kind = told.Type
		k.Deliveries = append(k.Deliveries, a)
	})
}

func (k *ImageKit) readHistory(ctx context.Context) error {
	type line struct {
		At     time.Time
		FileID string
		Kind   check.ChangeKind
		File   json.RawMessage
	}
	return lines(ctx, k, "history", &k.history, func(l *line) {
		k.History = append(k.History, check.Change{At: l.At, FileID: l.FileID, Kind: l.Kind, File: l.File})
	})
}

func (k *ImageKit) readFiles(ctx context.Context) error {
	body, err := k.get(ctx, "/_emulator/files")
	if err != nil {
		return err
	}
	defer body.Close()
	truth := map[string]json.RawMessage{}
	in := bufio.NewReaderSize(body, 1<<20)
	for {
		raw, err := in.ReadBytes('\n')
		if err == io.EOF && len(raw) == 0 {
			break
		}
		if err != nil {
			return err
		}
		var f struct{ FileID string }
		if err := json.Unmarshal(raw, &f); err != nil {
			return err
		}
		truth[f.FileID] = raw
	}
	k.Truth = truth
	return nil
}
