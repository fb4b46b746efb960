package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// account is ImageKit's stand-in, in a process of its own.
type account struct {
	url     string
	part    *process
	client  *http.Client
	batches int
}

// account starts an empty library without limits and webhooks.
func (s *stage) account(ctx context.Context) (*account, error) {
	dir, err := s.folder("emulator")
	if err != nil {
		return nil, err
	}
	p, err := s.start(ctx, nil, s.Self, s.PartCommand, partEmulator)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.stdin).Encode(accountConfig{Dir: dir, PublicKey: benchPublic, PrivateKey: benchPrivate}); err != nil {
		return nil, errors.Join(err, p.end())
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	a := &account{url: strings.TrimSpace(line), part: p, client: &http.Client{Timeout: time.Minute}}
	s.closes = append(s.closes, a.close)
	return a, a.unlimited(ctx)
}

func (a *account) close() error {
	a.client.CloseIdleConnections()
	if a.part == nil {
		return nil
	}
	p := a.part
	a.part = nil
	return p.end()
}

// unlimited lets the headers name a limit that nobody reaches: ImageKit always names
// one, and who is told of none has to feel the way.
func (a *account) unlimited(ctx context.Context) error { return a.limit(ctx, 1e6, 1e6) }

// limit sets the reading endpoints' limit.
func (a *account) limit(ctx context.Context, perSecond float64, burst int) error {
	return a.call(ctx, http.MethodPatch, "/_emulator/settings", map[string]any{"rateLimit": map[string]any{"perSecond": perSecond, "burst": burst}}, nil)
}

// stored is what the bench needs of a file in the library.
type stored struct {
	ID        string    `json:"fileId"`
	Path      string    `json:"filePath"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// generate adds files to the library and returns them, oldest first.
func (a *account) generate(ctx context.Context, n int) ([]stored, error) {
	folder, err := a.fill(ctx, n)
	if err != nil {
		return nil, err
	}
	files, known := make([]stored, 0, n), make(map[string]bool, n)
	for from := (time.Time{}); len(files) < n; {
		var page []stored
		if err := a.call(ctx, http.MethodGet, "/v1/files?limit=1000&sort=ASC_CREATED&searchQuery="+url.QueryEscape(createdFrom(from)), nil, &page); err != nil {
			return nil, err
		}
		if len(page) == 0 || !page[len(page)-1].CreatedAt.After(from) {
			return nil, fmt.Errorf("the library shows %d of %d files", len(files), n)
		}
		for _, f := range page {
			if strings.HasPrefix(f.Path, folder+"/") && !known[f.ID] {
				known[f.ID], files = true, append(files, f)
			}
		}
		from = page[len(page)-1].CreatedAt.Truncate(time.Second)
	}
	return files, nil
}

// createdFrom asks for files by windows of creation time, as a run does; a deep skip would
// cost the library more with every page.
func createdFrom(from time.Time) string {
	if from.IsZero() {
		return `type = "file"`
	}
	return `type = "file" AND createdAt >= "` + from.UTC().Format("2006-01-02T15:04:05Z") + `"`
}

// fill adds files without asking which.
func (a *account) fill(ctx context.Context, n int) (folder string, err error) {
	a.batches++
	folder = fmt.Sprintf("/b%d", a.batches)
	return folder, a.call(ctx, http.MethodPost, "/_emulator/files/generate", map[string]any{"count": n, "folder": folder}, nil)
}

// calls is how often ImageKit's reading endpoints were asked so far.
func (a *account) calls(ctx context.Context) (int64, error) {
	var stats struct {
		Requests map[string]int64 `json:"requests"`
	}
	if err := a.call(ctx, http.MethodGet, "/_emulator/stats", nil, &stats); err != nil {
		return 0, err
	}
	return stats.Requests["details"] + stats.Requests["list"], nil
}

func (a *account) call(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.url+path, payload)
	if err != nil {
		return err
	}
	r.SetBasicAuth(benchPrivate, "")
	r.Header.Set("Content-Type", "application/json")
	answer, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, answer.Status, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}
