package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"time"
)

// sample is one upload that goes the whole way, as a browser would send it: token,
// upload, report, outcome, row. It knows only what dev.env says.
type sample struct {
	env  map[string]string
	out  io.Writer
	json bool

	steps []sampleStep
}

// sampleStep is one step and how long it took.
type sampleStep struct {
	Step string        `json:"step"`
	Took time.Duration `json:"tookNs"`
	What string        `json:"what"`
}

// send goes the way and prints each step as it is done.
func (s *sample) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !s.json {
		_, _ = fmt.Fprintln(s.out, "\nOne sample upload, the whole way:")
	}
	began := time.Now()
	var token struct {
		Token         string            `json:"token"`
		UploadPayload map[string]string `json:"uploadPayload"`
	}
	err := s.step("signed", func() (string, error) {
		ask := map[string]any{"uploadPayload": map[string]any{"fileName": "sample.png", "tags": []string{"sample"}}}
		err := s.call(ctx, http.MethodPost, s.env["TRUEUP_URL"]+"/generate-upload-token", ask, &token)
		return "POST /generate-upload-token: a V2 token with an ownership ticket inside", err
	})
	if err != nil {
		return err
	}
	var uploaded struct {
		FileID string `json:"fileId"`
		URL    string `json:"url"`
	}
	err = s.step("uploaded", func() (string, error) {
		err := s.upload(ctx, token.Token, token.UploadPayload, &uploaded)
		return "the browser's upload to ImageKit: fileId " + uploaded.FileID, err
	})
	if err != nil {
		return err
	}
	return s.follow(ctx, began, uploaded.FileID, uploaded.URL)
}

// follow reports the upload and waits for its row.
func (s *sample) follow(ctx context.Context, began time.Time, fileID, url string) error {
	var accepted struct {
		ReportID string `json:"reportId"`
	}
	err := s.step("reported", func() (string, error) {
		err := s.call(ctx, http.MethodPost, s.env["TRUEUP_URL"]+"/save-metadata", map[string]string{"fileId": fileID, "url": url}, &accepted)
		return "POST /save-metadata: on the queue, on disk, 202", err
	})
	if err != nil {
		return err
	}
	var outcome struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	}
	err = s.step("verified", func() (string, error) {
		err := s.call(ctx, http.MethodGet, s.env["TRUEUP_URL"]+"/reports/"+accepted.ReportID+"?wait=20s", nil, &outcome)
		if err == nil && outcome.State != "verified" {
			err = fmt.Errorf("the report is %s %s", outcome.State, outcome.Reason)
		}
		return "looked up at ImageKit, settled in one transaction, acked", err
	})
	if err != nil {
		return err
	}
	var told passportView
	err = s.step("in the table", func() (string, error) {
		if err := s.passport(ctx, fileID, &told); err != nil {
			return "", err
		}
		if told.Row == nil {
			return "", fmt.Errorf("no row for %s", fileID)
		}
		return fmt.Sprintf("imagekit_files: %s belongs to %s, %s after the start", told.Row.Path, told.Row.User, round(time.Since(began))), nil
	})
	if err != nil {
		return err
	}
	return s.step("told again", func() (string, error) {
		line, err := s.webhookLine(ctx, fileID)
		return "ImageKit's own file.created: verified, accepted, looked up; the row was " + line, err
	})
}

// passportView is what the sample reads of a file's passport.
type passportView struct {
	Row *struct {
		User string `json:"userId"`
		Path string `json:"filePath"`
	} `json:"row"`
	Lines []struct {
		Kind    string `json:"kind"`
		Outcome string `json:"outcome"`
	} `json:"lines"`
}

func (s *sample) passport(ctx context.Context, fileID string, into *passportView) error {
	return s.call(ctx, http.MethodGet, s.env["TRUEUP_OPS_URL"]+"/api/files/"+fileID, nil, into)
}

// webhookLine waits until the webhook of the same upload is settled, too, and says what
// it did to the row.
func (s *sample) webhookLine(ctx context.Context, fileID string) (string, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		var told passportView
		if err := s.passport(ctx, fileID, &told); err != nil {
			return "", err
		}
		for _, l := range told.Lines {
			if l.Kind == "file.created" {
				return l.Outcome, nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return "", fmt.Errorf("the webhook has not come: %w", ctx.Err())
		}
	}
}

// step times f and prints its line.
func (s *sample) step(name string, f func() (string, error)) error {
	began := time.Now()
	what, err := f()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	step := sampleStep{Step: name, Took: time.Since(began), What: what}
	s.steps = append(s.steps, step)
	if s.json {
		return json.NewEncoder(s.out).Encode(step)
	}
	_, err = fmt.Fprintf(s.out, "  %-13s %8s   %s\n", step.Step, round(step.Took), step.What)
	return err
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// call sends and reads JSON; the operator API gets its own token.
func (s *sample) call(ctx context.Context, method, url string, body, into any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token := s.env["TRUEUP_OPS_TOKEN"]; len(url) > len(s.env["TRUEUP_OPS_URL"]) && url[:len(s.env["TRUEUP_OPS_URL"])] == s.env["TRUEUP_OPS_URL"] {
		r.Header.Set("Authorization", "Bearer "+token)
	} else if token := s.env["TRUEUP_DEV_TOKEN"]; token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.do(r, into)
}

// upload is the form that a browser sends: exactly the signed fields, the token, the
// file.
func (s *sample) upload(ctx context.Context, token string, fields map[string]string, into any) error {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			return err
		}
	}
	if err := w.WriteField("token", token); err != nil {
		return err
	}
	part, err := w.CreateFormFile("file", "sample.png")
	if err != nil {
		return err
	}
	if err := png.Encode(part, sampleImage()); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.env["IMAGE_KIT_BASE_URL"]+"/api/v2/files/upload", &form)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", w.FormDataContentType())
	return s.do(r, into)
}

func (s *sample) do(r *http.Request, into any) error {
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, resp.Status, raw)
	}
	return json.Unmarshal(raw, into)
}

func sampleImage() image.Image {
	m := image.NewRGBA(image.Rect(0, 0, 96, 64))
	for y := range 64 {
		for x := range 96 {
			m.Set(x, y, color.RGBA{R: uint8(2 * x), G: uint8(3 * y), B: 160, A: 255})
		}
	}
	return m
}
