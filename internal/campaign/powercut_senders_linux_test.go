package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/check"
)

// cutFile is a file of one sender's.
type cutFile struct {
	id string
	// changes counts what was done to it in the library; told is how many of them had
	// happened when an event that trueup has acknowledged was sent, -1 before the first.
	changes, told int
	deleted       bool
	reported      bool // by an acknowledged report
}

// sender is one of many that report and notify at the same time. It is persistent, as
// clients are told to be and webhooks are: what was not acknowledged is sent again.
type sender struct {
	user    string
	token   string
	rng     *rand.Rand
	files   []*cutFile
	library *library
	think   time.Duration
	// removals are how many files it may still delete: together few enough for the fuse,
	// which counts what is gone before the news of it has been read.
	removals int

	// heard is told of each acknowledgement.
	heard func()

	waiting *message // not acknowledged yet
	acks    []check.Ack
}

// cutMarker stands in what clients write and must never reach the table.
const cutMarker = "written-by-a-client"

// message is one request that a sender has to bring to trueup.
type message struct {
	door      check.Door
	kind      string
	files     []*cutFile
	changes   []int // of each file when it was written
	webhookID string
	body      []byte
	elements  [][]byte // of an array of reports
}

// makeSenders deals the files out.
func makeSenders(p cutPlan, lib *library, fileIDs []string) ([]*sender, error) {
	all := make([]*sender, p.Senders)
	for i := range all {
		s := &sender{removals: b2i(i < 6), heard: func() {}, user: fmt.Sprintf("user_%d", i), library: lib, think: p.Think, rng: rand.New(rand.NewPCG(p.Seed, uint64(i)+1))}
		now := time.Now()
		var err error
		s.token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": s.user, "iss": cutIssuer, "aud": "trueup",
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}).SignedString([]byte(cutJWTSecret))
		if err != nil {
			return nil, err
		}
		all[i] = s
	}
	for i, id := range fileIDs {
		s := all[i%len(all)]
		s.files = append(s.files, &cutFile{id: id, told: -1})
	}
	return all, nil
}

// sendAll lets all senders work until ctx ends, and returns when they have stopped.
func sendAll(ctx context.Context, senders []*sender, at string) error {
	errs := make([]error, len(senders))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: len(senders)}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for i, s := range senders {
		wg.Go(func() { errs[i] = s.work(ctx, client, "http://"+at) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) work(ctx context.Context, client *http.Client, at string) error {
	for ctx.Err() == nil {
		if s.waiting == nil {
			var err error
			if s.waiting, err = s.next(); err != nil {
				return err
			}
		}
		rest := s.think
		if s.deliver(ctx, client, at) {
			s.waiting = nil
		} else {
			rest = 10 * time.Millisecond
		}
		waitFor(ctx, rest)
	}
	return nil
}

func waitFor(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// finish delivers what a sender still holds, and names the files that it has not named
// yet.
func (s *sender) finish(ctx context.Context, client *http.Client, at string) error {
	rest := s.files
	for ctx.Err() == nil {
		switch {
		case s.waiting != nil:
			if !s.deliver(ctx, client, at) {
				waitFor(ctx, 20*time.Millisecond)
				continue
			}
			s.waiting = nil
		case len(rest) == 0:
			return nil
		default:
			if f := rest[0]; f.told < f.changes {
				s.waiting = s.webhook("file.updated", f)
			}
			rest = rest[1:]
		}
	}
	return ctx.Err()
}

// next decides what happens next and, where something changes in the library, does it.
func (s *sender) next() (*message, error) {
	f := s.any()
	switch n := s.rng.IntN(100); {
	case n < 45:
		return s.report(f), nil
	case n < 55:
		some := []*cutFile{f}
		for range s.rng.IntN(20) {
			some = append(some, s.any())
		}
		return s.report(some...), nil
	case n < 80:
		return s.webhook("file.updated", f), nil
	case n < 94:
		return s.change(f)
	case s.removals > 0:
		return s.remove(f)
	default:
		return s.report(f), nil
	}
}

// any is one of the sender's files that are still there.
func (s *sender) any() *cutFile {
	for {
		if f := s.files[s.rng.IntN(len(s.files))]; !f.deleted {
			return f
		}
	}
}

func (s *sender) change(f *cutFile) (*message, error) {
	tags := []string{fmt.Sprintf("v%d", f.changes+1), "cut"}
	if err := s.library.call(context.Background(), "PATCH", "/v1/files/"+f.id+"/details", map[string]any{"tags": tags}, nil); err != nil {
		return nil, err
	}
	f.changes++
	return s.webhook("file.updated", f), nil
}

func (s *sender) remove(f *cutFile) (*message, error) {
	if err := s.library.call(context.Background(), "DELETE", "/v1/files/"+f.id, nil, nil); err != nil {
		return nil, err
	}
	f.changes, f.deleted, s.removals = f.changes+1, true, s.removals-1
	return s.webhook("file.deleted", f), nil
}

func (s *sender) report(files ...*cutFile) *message {
	m := &message{door: check.Report, files: files}
	for _, f := range files {
		m.elements = append(m.elements, fmt.Appendf(nil, `{"fileId":%q,"url":%q}`, f.id, "https://"+cutMarker+".example/"+s.user))
	}
	m.body = m.elements[0]
	if len(files) > 1 {
		m.body = append(append([]byte("["), bytes.Join(m.elements, []byte(","))...), ']')
	}
	return m.dated()
}

func (s *sender) webhook(kind string, f *cutFile) *message {
	id := "evt_" + ulid.Make().String()
	return (&message{door: check.Webhook, kind: kind, files: []*cutFile{f}, webhookID: id,
		body: fmt.Appendf(nil, `{"type":%q,"id":%q,"created_at":%q,"data":{"fileId":%q}}`, kind, id, time.Now().UTC().Format(time.RFC3339Nano), f.id)}).dated()
}

func (m *message) dated() *message {
	for _, f := range m.files {
		m.changes = append(m.changes, f.changes)
	}
	return m
}

// deliver sends the message once, writes down what it was told, and reports whether it
// was acknowledged.
func (s *sender) deliver(ctx context.Context, client *http.Client, at string) bool {
	m := s.waiting
	path := "/save-metadata"
	if m.door == check.Webhook {
		path = "/webhooks/imagekit"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at+path, bytes.NewReader(m.body))
	if err != nil {
		return false
	}
	r.Header.Set("Content-Type", "application/json")
	sent := time.Now()
	if m.door == check.Webhook {
		signature.Sign(r.Header, cutSecret, "msg_"+ulid.Make().String(), sent, m.body)
	} else {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	status, ids := 0, []string(nil)
	if resp, err := client.Do(r); err == nil {
		status, ids = readAnswer(resp, len(m.files))
	}
	s.write(m, sent, status, ids)
	return status/100 == 2
}

// readAnswer returns 0 where the answer was cut off.
func readAnswer(resp *http.Response, files int) (status int, reportIDs []string) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	var a struct {
		ReportID string `json:"reportId"`
		Reports  []struct {
			ReportID string `json:"reportId"`
		} `json:"reports"`
	}
	_ = json.Unmarshal(raw, &a)
	for _, r := range a.Reports {
		reportIDs = append(reportIDs, r.ReportID)
	}
	if a.ReportID != "" {
		reportIDs = append(reportIDs, a.ReportID)
	}
	if len(reportIDs) != files {
		reportIDs = nil
	}
	return resp.StatusCode, reportIDs
}

func (s *sender) write(m *message, sent time.Time, status int, reportIDs []string) {
	for i, f := range m.files {
		a := check.Ack{Door: m.door, SentAt: sent, Status: status, Genuine: true, FileID: f.id, Kind: m.kind, WebhookID: m.webhookID, Body: m.body}
		if m.door == check.Report {
			a.User, a.Body = s.user, m.elements[i]
		}
		if reportIDs != nil {
			a.ReportID = reportIDs[i]
		}
		if status != 0 {
			a.AnsweredAt = time.Now()
		}
		if a.Status/100 == 2 {
			s.heard()
			f.told = max(f.told, m.changes[i])
			f.reported = f.reported || m.door == check.Report
		}
		s.acks = append(s.acks, a)
	}
}

// eventOf is the event's id inside a report's: "rp_", the id, "_", a seal.
func eventOf(reportID string) string {
	rest, _ := strings.CutPrefix(reportID, "rp_")
	id, _, _ := strings.Cut(rest, "_")
	return id
}
