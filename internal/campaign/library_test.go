package campaign

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
	"net/url"
	"time"
)

// What happens in ImageKit's library, around every link: these are people and servers
// elsewhere, and trueup only hears of it.

// imagekit sends to the emulator; key true signs as a server does.
func (r *rig) imagekit(ctx context.Context, method, path string, key bool, contentType string, body []byte) (answered, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.direct+path, bytes.NewReader(body))
	if err != nil {
		return answered{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if key {
		req.SetBasicAuth(r.keys.private, "")
	}
	resp, err := r.library().Do(req)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return answered{status: resp.StatusCode, header: resp.Header, body: raw}, err
}

// library keeps no connection, so that nothing of it is left at the end.
func (r *rig) library() *http.Client { return libraryClient }

var libraryClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

// control is one call of the emulator's control API; it fails unless answered 2xx.
func (r *rig) control(method, path string, body, into any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	a, err := r.imagekit(context.Background(), method, "/_emulator/"+path, false, "application/json", raw)
	if err != nil {
		return err
	}
	if a.status >= 300 {
		return fmt.Errorf("%s /_emulator/%s: %d %s", method, path, a.status, a.body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(a.body, into)
}

// Settings changes the emulator's knobs.
func (r *rig) Settings(knobs map[string]any) error {
	if len(knobs) == 0 {
		return nil
	}
	return r.control("PATCH", "settings", knobs, nil)
}

// Fault plants a fault in the emulator and returns its number.
func (r *rig) Fault(fault map[string]any) (int, error) {
	var planted struct{ ID int }
	err := r.control("POST", "faults", fault, &planted)
	return planted.ID, err
}

// Fired is how often each planted fault has fired.
func (r *rig) Fired() (map[int]int, error) {
	var list []struct{ ID, Fired int }
	err := r.control("GET", "faults", nil, &list)
	times := map[int]int{}
	for _, f := range list {
		times[f.ID] = f.Fired
	}
	return times, err
}

// Unplant takes one fault away.
func (r *rig) Unplant(id int) error {
	return r.control("DELETE", fmt.Sprintf("faults/%d", id), nil, nil)
}

func (r *rig) healFaults() error { return r.control("DELETE", "faults", nil, nil) }

// Upload uploads as the application's server does, or with the fields of an upload
// token, and returns the file's id. A file of the same path is overwritten.
func (r *rig) Upload(ctx context.Context, fields map[string]string, n int) (fileID string, err error) {
	path, key := "/api/v1/files/upload", true
	if fields["token"] != "" {
		path, key = "/api/v2/files/upload", false
	}
	contentType, body, err := form(fields, picture(n))
	if err != nil {
		return "", err
	}
	a, err := r.imagekit(ctx, http.MethodPost, path, key, contentType, body)
	if err != nil {
		return "", err
	}
	var out struct {
		FileID string `json:"fileId"`
	}
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusOK {
		return "", fmt.Errorf("upload: %d %s", a.status, a.body)
	}
	return out.FileID, nil
}

// Overwrite gives the file of that path another content.
func (r *rig) Overwrite(ctx context.Context, fileName, folder string, n int) error {
	contentType, body, err := form(map[string]string{"fileName": fileName, "folder": folder, "useUniqueFileName": "false", "overwriteFile": "true"}, picture(n))
	if err != nil {
		return err
	}
	a, err := r.imagekit(ctx, http.MethodPost, "/api/v1/files/upload", true, contentType, body)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("overwrite %s: %d %s", fileName, a.status, a.body)
	}
	return err
}

// Move moves a file into another folder.
func (r *rig) Move(ctx context.Context, path, folder string) error {
	raw, _ := json.Marshal(map[string]string{"sourceFilePath": path, "destinationPath": folder})
	return r.changed(ctx, http.MethodPost, "/v1/files/move", raw)
}

// Edit changes a file's tags.
func (r *rig) Edit(ctx context.Context, fileID string, tags []string) error {
	raw, _ := json.Marshal(map[string]any{"tags": tags})
	return r.changed(ctx, http.MethodPatch, "/v1/files/"+url.PathEscape(fileID)+"/details", raw)
}

// Delete removes a file for good.
func (r *rig) Delete(ctx context.Context, fileID string) error {
	return r.changed(ctx, http.MethodDelete, "/v1/files/"+url.PathEscape(fileID), nil)
}

func (r *rig) changed(ctx context.Context, method, path string, body []byte) error {
	contentType := ""
	if body != nil {
		contentType = "application/json"
	}
	a, err := r.imagekit(ctx, method, path, true, contentType, body)
	if err != nil {
		return err
	}
	if a.status/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return nil
}

// Generate makes n files at once, without webhooks.
func (r *rig) Generate(folder string, n int) error {
	return r.control("POST", "files/generate", map[string]any{"count": n, "folder": folder, "spread": "30m"}, nil)
}

// form is an upload's multipart body.
func form(fields map[string]string, content []byte) (contentType string, body []byte, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			return "", nil, err
		}
	}
	part, err := w.CreateFormFile("file", "x.png")
	if err != nil {
		return "", nil, err
	}
	if _, err := part.Write(content); err != nil {
		return "", nil, err
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	return w.FormDataContentType(), b.Bytes(), nil
}

// picture is a PNG that differs with n.
func picture(n int) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 16+n%32, 8+n%16))
	m.Set(n%16, n%8, color.RGBA{R: uint8(n), G: uint8(n >> 8), B: 1, A: 255})
	var b bytes.Buffer
	_ = png.Encode(&b, m)
	return b.Bytes()
}
