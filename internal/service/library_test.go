package service_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // ImageKit's V1 signature is HMAC-SHA1
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// What ImageKit's side of an installation is asked and told, over HTTP alone.

// imagekit sends to the emulator; key true signs as the server's own SDK does.
func (in *installation) imagekit(method, path string, key bool, contentType string, body io.Reader) answer {
	in.t.Helper()
	r, err := http.NewRequest(method, in.env["IMAGE_KIT_BASE_URL"]+path, body)
	if err != nil {
		in.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if key {
		r.SetBasicAuth(in.env["IMAGEKIT_PRIVATE_KEY"], "")
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := plain.Do(r)
	if err != nil {
		in.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: raw}
}

// control is one call of the emulator's control API that has to succeed.
func (in *installation) control(method, path string, body any) answer {
	in.t.Helper()
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			in.t.Fatal(err)
		}
		payload = bytes.NewReader(raw)
	}
	a := in.imagekit(method, "/_emulator/"+path, false, "application/json", payload)
	if a.status >= 300 {
		in.t.Fatalf("%s /_emulator/%s: %d %s", method, path, a.status, a.body)
	}
	return a
}

// settings changes the emulator's knobs.
func (in *installation) settings(knobs map[string]any) {
	in.t.Helper()
	in.control("PATCH", "settings", knobs)
}

// webhooks switches them on or off.
func (in *installation) webhooks(on bool) {
	in.t.Helper()
	in.settings(map[string]any{"webhooks": map[string]any{"enabled": on}})
}

// stats are the emulator's counters.
type stats struct {
	Requests    map[string]int `json:"requests"`
	RateLimited int            `json:"rateLimited"`
	Faults      int            `json:"faults"`
	Webhooks    struct {
		Sent, Acked, Failed int
	} `json:"webhooks"`
}

func (in *installation) stats() (s stats) {
	in.t.Helper()
	if err := json.Unmarshal(in.control("GET", "stats", nil).body, &s); err != nil {
		in.t.Fatal(err)
	}
	return s
}

// picture is a PNG that differs with n.
func picture(n int) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 16+n%32, 8+n%16))
	m.Set(n%16, n%8, color.RGBA{R: uint8(n), G: uint8(n >> 8), B: 1, A: 255})
	var b bytes.Buffer
	_ = png.Encode(&b, m)
	return b.Bytes()
}

// form is an upload's multipart body.
func form(t testing.TB, fields map[string]string, fileName string, content []byte) (contentType string, body io.Reader) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", fileName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), &b
}

// uploadServer uploads as the application's server does: with the private key.
func (in *installation) uploadServer(fields map[string]string, n int) (fileID string) {
	in.t.Helper()
	all := map[string]string{"fileName": fmt.Sprintf("server-%d.png", n)}
	for k, v := range fields {
		all[k] = v
	}
	ct, body := form(in.t, all, "x.png", picture(n))
	return in.imagekit("POST", "/api/v1/files/upload", true, ct, body).want(in.t, http.StatusOK).text(in.t, "fileId")
}

// uploadV1 uploads as the guide's browser does: signature from /generate-auth-params.
func (in *installation) uploadV1(user string, fields map[string]string, n int) (fileID string) {
	in.t.Helper()
	a := in.call(user, "GET", "/generate-auth-params", nil).want(in.t, http.StatusOK)
	expire, _ := a.get(in.t, "expire").(float64)
	all := map[string]string{"fileName": fmt.Sprintf("v1-%d.png", n), "publicKey": in.env["IMAGEKIT_PUBLIC_KEY"],
		"token": a.text(in.t, "token"), "signature": a.text(in.t, "signature"), "expire": strconv.FormatInt(int64(expire), 10)}
	for k, v := range fields {
		all[k] = v
	}
	ct, body := form(in.t, all, "x.png", picture(n))
	return in.imagekit("POST", "/api/v1/files/upload", false, ct, body).want(in.t, http.StatusOK).text(in.t, "fileId")
}

// uploadV2 uploads with a token that carries user's ticket.
func (in *installation) uploadV2(user string, payload map[string]any, n int) (fileID string) {
	in.t.Helper()
	if payload["fileName"] == nil {
		payload["fileName"] = fmt.Sprintf("v2-%d.png", n)
	}
	a := in.call(user, "POST", "/generate-upload-token", map[string]any{"uploadPayload": payload}).want(in.t, http.StatusOK)
	fields := map[string]string{"token": a.text(in.t, "token")}
	signed, _ := a.get(in.t, "uploadPayload").(map[string]any)
	for k, v := range signed {
		fields[k], _ = v.(string)
	}
	ct, body := form(in.t, fields, "x.png", picture(n))
	return in.imagekit("POST", "/api/v2/files/upload", false, ct, body).want(in.t, http.StatusOK).text(in.t, "fileId")
}

// delete removes a file for good.
func (in *installation) delete(fileID string) {
	in.t.Helper()
	in.imagekit("DELETE", "/v1/files/"+fileID, true, "", nil).want(in.t, http.StatusNoContent)
}

// patch changes tags or metadata.
func (in *installation) patch(fileID string, change map[string]any) {
	in.t.Helper()
	raw, _ := json.Marshal(change)
	in.imagekit("PATCH", "/v1/files/"+fileID+"/details", true, "application/json", bytes.NewReader(raw)).want(in.t, http.StatusOK)
}

// signV1 makes upload parameters with the private key itself, for what no route of
// ours hands out.
func (in *installation) signV1() map[string]string {
	token, expire := rand.Text(), strconv.FormatInt(time.Now().Add(20*time.Minute).Unix(), 10)
	mac := hmac.New(sha1.New, []byte(in.env["IMAGEKIT_PRIVATE_KEY"]))
	mac.Write([]byte(token + expire))
	return map[string]string{"token": token, "expire": expire, "signature": hex.EncodeToString(mac.Sum(nil)), "publicKey": in.env["IMAGEKIT_PUBLIC_KEY"]}
}
