package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// status is what /api/status of a worker says, as far as a campaign waits for it. It
// decides only when to look; what is judged is read elsewhere.
type status struct {
	Worker struct {
		Here   bool   `json:"here"`
		Paused bool   `json:"paused"`
		Outage string `json:"outage"`
	} `json:"worker"`
	Queue struct {
		Waiting, Unacked int
	} `json:"queue"`
	Retries     *struct{ Count int } `json:"retries"`
	DeadLetters map[string]int       `json:"deadLetters"`
	Fuse        struct {
		Latched bool   `json:"latched"`
		Why     string `json:"why"`
	} `json:"fuse"`
	Unavailable map[string]string `json:"unavailable"`
}

var opsKeys atomic.Int64

// Ops asks the operator API of a worker, around every link.
func (r *rig) Ops(ctx context.Context, worker int, method, path string, body any) (answered, error) {
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.ops[worker%len(r.ops)]+path, bytes.NewReader(raw))
	if err != nil {
		return answered{}, err
	}
	req.Header.Set("Authorization", "Bearer "+r.keys.ops)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", fmt.Sprintf("campaign-%d-%d", time.Now().UnixNano(), opsKeys.Add(1)))
	}
	resp, err := opsClient.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return answered{status: resp.StatusCode, header: resp.Header, body: out}, err
}

var opsClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// Status asks the workers in turn until one answers.
func (r *rig) Status(ctx context.Context) (s status, err error) {
	for i := range r.ops {
		var a answered
		if a, err = r.Ops(ctx, i, http.MethodGet, "/api/status", nil); err != nil {
			continue
		}
		if a.status != http.StatusOK {
			err = fmt.Errorf("GET /api/status: %d %s", a.status, a.body)
			continue
		}
		return s, json.Unmarshal(a.body, &s)
	}
	return s, err
}

// pendingWebhooks are those that the emulator has not delivered yet.
func (r *rig) pendingWebhooks() (int, error) {
	var s struct {
		Webhooks struct{ Pending int }
	}
	err := r.control("GET", "stats", nil, &s)
	return s.Webhooks.Pending, err
}

// Quiet returns nil when nothing is under way: every webhook delivered or given up, the
// queue empty, no retry waiting.
func (r *rig) Quiet(ctx context.Context) error {
	if n, err := r.pendingWebhooks(); err != nil || n > 0 {
		return errors.Join(err, fmt.Errorf("%d webhooks are on their way", n))
	}
	s, err := r.Status(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(s.Unavailable) > 0:
		return fmt.Errorf("unavailable: %v", s.Unavailable)
	case s.Queue.Waiting+s.Queue.Unacked > 0:
		return fmt.Errorf("%d envelopes wait, %d are not acked; outage %q", s.Queue.Waiting, s.Queue.Unacked, s.Worker.Outage)
	case s.Retries == nil || s.Retries.Count > 0:
		return fmt.Errorf("retries: %+v", s.Retries)
	case s.Fuse.Latched:
		return fmt.Errorf("the fuse is latched: %s", s.Fuse.Why)
	}
	return nil
}

// Settle waits until nothing is under way and the table holds what the library holds.
// The bound is generous: only a system that is stuck meets it.
func (r *rig) Settle(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := until(ctx, func() error { return r.Quiet(ctx) }); err != nil {
		return r.stuck(within, err)
	}
	if err := until(ctx, func() error { return r.Differs(ctx) }); err != nil {
		return fmt.Errorf("not converged in %s: %w", within, err)
	}
	if err := until(ctx, func() error { return r.Quiet(ctx) }); err != nil {
		return r.stuck(within, err)
	}
	return nil
}

// Differs says, by file and version, how the table differs from the library. It is what
// Settle waits for and no judge: that is the checker, which compares every column.
func (r *rig) Differs(ctx context.Context) error {
	want, err := r.versions(ctx)
	if err != nil {
		return err
	}
	rows, err := r.db.Query(ctx, `SELECT file_id, coalesce(version_id, ''), coalesce(file_path, '') FROM public.imagekit_files`)
	if err != nil {
		return err
	}
	defer rows.Close()
	wrong, n := "", 0
	for rows.Next() {
		var id, version, path string
		if err := rows.Scan(&id, &version, &path); err != nil {
			return err
		}
		if w, ok := want[id]; !ok || w != version+" "+path {
			wrong, n = fmt.Sprintf("%s is %s %s, want %q", id, version, path, w), n+1
		}
		delete(want, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for id := range want {
		wrong, n = "no row for "+id, n+1
	}
	if n > 0 {
		return fmt.Errorf("%d files differ: %s", n, wrong)
	}
	return nil
}

// versions is what the library holds: version and path by id.
func (r *rig) versions(ctx context.Context) (map[string]string, error) {
	a, err := r.imagekit(ctx, http.MethodGet, "/_emulator/files", false, "", nil)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for lines := json.NewDecoder(bytes.NewReader(a.body)); ; {
		var f struct {
			FileID      string `json:"fileId"`
			FilePath    string `json:"filePath"`
			VersionInfo struct {
				ID string `json:"id"`
			} `json:"versionInfo"`
		}
		switch err := lines.Decode(&f); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read the library: %w", err)
		}
		all[f.FileID] = f.VersionInfo.ID + " " + f.FilePath
	}
}
