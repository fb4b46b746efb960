package emulator

import (
	"net/http"
	"testing"
	"time"
)

// The vectors were made with ImageKit's official SDKs and libraries.

const (
	bodyA     = `{"type":"file.deleted","id":"7f0c1b0a-4a3e-4d0e-9a53-1f1f9f2a0c01","created_at":"2026-01-02T03:04:05.678Z","data":{"fileId":"598821f949c0a938d57563bd"}}`
	bodyB     = `{"type":"file.created","id":"0d9b4a2e-6a55-4f0e-8f7a-2c1f0f3f7b02","created_at":"2026-01-02T03:04:05.678Z","data":{"fileId":"6957360537b244ef54d60180","type":"file","name":"café.jpg","tags":null}}`
	oldSecret = "whsec_b2xkLXNlY3JldC1iZWZvcmUtcm90YXRpb24="
	tokenJ1   = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InB1YmxpY19lbXVsYXRvcktleTAxMjM0NTY3ODlhYmNkZWY9In0.eyJmaWxlTmFtZSI6ImRyZXNzLmpwZyIsInVzZVVuaXF1ZUZpbGVOYW1lIjoiZmFsc2UiLCJ0YWdzIjoic3VtbWVyLGRyZXNzIiwiaWF0IjoxNzY3MzIzMDQ1LCJleHAiOjE3NjczMjM0NDV9.tSwmDG-m1wDgaM0XcUvkmPUWniK4ouL9HG3EQ64Sjcc"
)

func TestWebhookSignatureVectors(t *testing.T) {
	at := time.UnixMilli(1767323045678)
	for _, v := range []struct{ name, secret, id, body, header, want string }{
		{"W1", testSecret, "x", bodyA, "X-Ik-Signature", "t=1767323045678,v1=457fc48abfd47503f2f9563db436aede75346e12c981fa17a92e5d59c45995d3"},
		{"W2", testSecret, "x", bodyB, "X-Ik-Signature", "t=1767323045678,v1=4090687a163d661ba0d24391e0a805828e284f99a35debbbba162364bb2ea39b"},
		{"W3", testSecret, "msg_2b7a6f5e4d3c2b1a", bodyA, "Webhook-Signature", "v1,0B5IflPGNzNC3qG4+jct5dJwPqM0ZZY85Y1oUOQqWXU="},
		{"W4", testSecret, "msg_0d9b4a2e6a554f0e", bodyB, "Webhook-Signature", "v1,KWKuXjEb/Lu0OeEoUgAj3+QNffeloxiTo1qYtAMQaXo="},
		{"W5", oldSecret, "msg_0d9b4a2e6a554f0e", bodyB, "Webhook-Signature", "v1,tPUIewjFTgXjZQUumvco4Ggac+ssCghGXFo0t6K5RCo="},
	} {
		h := SignWebhook(v.secret, v.id, []byte(v.body), at)
		if got := h.Get(v.header); got != v.want {
			t.Errorf("%s: %s, want %s", v.name, got, v.want)
		}
		if h.Get("webhook-timestamp") != "1767323045" || h.Get("webhook-id") != v.id {
			t.Errorf("%s: %v", v.name, h)
		}
	}
}

func TestWebhookSettingsChooseHeadersAndKey(t *testing.T) {
	at := time.Unix(1767323045, 0)
	sign := func(w WebhookSettings) http.Header {
		return w.sign(testSecret, "msg_2b7a6f5e4d3c2b1a", []byte(bodyA), at)
	}
	if got := sign(WebhookSettings{SignatureHeaders: "both", SpecKey: true}).Get("webhook-signature"); got != "v1,UP58VkMebPrBPgmflkcOFXM7RhRZvyvODhgbyTIjvJA=" {
		t.Errorf("W9, by the letter of the specification: %s", got)
	}
	if got := sign(WebhookSettings{SignatureHeaders: "both"}).Get("webhook-signature"); got != "v1,0B5IflPGNzNC3qG4+jct5dJwPqM0ZZY85Y1oUOQqWXU=" {
		t.Errorf("W3, by default: %s", got)
	}
	if h := sign(WebhookSettings{SignatureHeaders: "standard"}); len(h) != 3 || h.Get("x-ik-signature") != "" {
		t.Errorf("standard: %v", h)
	}
	if h := sign(WebhookSettings{SignatureHeaders: "legacy"}); len(h) != 1 || h.Get("x-ik-signature") == "" {
		t.Errorf("legacy: %v", h)
	}
}

func TestUploadSignatureVectors(t *testing.T) {
	if got := SignUpload(testPrivate, "6f1f4e1e-9a0f-4c7e-8b8a-0d6f0c8d1a11", 1767323045); got != "90274bf89dde3982d9a474e12a1aa763c79dcffb" {
		t.Errorf("U1: %s", got)
	}
	if got := SignUpload(testPrivate, "tok", 1582269249); got != "70d04ab0296f780ecc5d29195e04d8921c775f6a" {
		t.Errorf("U2: %s", got)
	}
}

func TestTokenVector(t *testing.T) {
	a := start(t, Config{Now: func() time.Time { return time.Unix(1767323100, 0) }})
	fields := map[string]string{"fileName": "dress.jpg", "useUniqueFileName": "false", "tags": "summer,dress", "token": tokenJ1}
	if r := a.post("v2", false, fields, plainPNG(1, 1)); r.status != 200 || r.text("filePath") != "/dress.jpg" {
		t.Errorf("J1: %d %s", r.status, r.body)
	}
	late := start(t, Config{Now: func() time.Time { return time.Unix(1767323446, 0) }})
	if r := late.post("v2", false, fields, plainPNG(1, 1)); r.status != 400 || r.text("message") != sayExpiredToken {
		t.Errorf("J1, late: %d %s", r.status, r.body)
	}
}

func TestURLSignatureVectors(t *testing.T) {
	for _, v := range []struct{ name, rest, expiry, want string }{
		{"S1", "a/b.jpg", "", "21d7180f60f9199ee2a7381c3a86d997d9460ab9"},
		{"S2", "a/b.jpg?tr=w-400", "", "99a0e7af847acaf094c935b60cf218f7023ae47a"},
		{"S3", "tr:w-400/a/b.jpg", "", "01f5e1c384277567d350a3d933c3b601e2b50005"},
		{"S4", "a/b.jpg?tr=w-400", "1767323345", "96d154c435f632ef6f22680d0a9e4cf4ab61d716"},
	} {
		if got := signURL(testPrivate, v.rest, v.expiry); got != v.want {
			t.Errorf("%s: %s, want %s", v.name, got, v.want)
		}
	}
}

// TestSignedDelivery drives the vectors' URLs through real requests.
func TestSignedDelivery(t *testing.T) {
	a := start(t, Config{Now: func() time.Time { return time.Unix(1767323345, 0) }})
	picture := plainPNG(7, 5)
	a.put("b.jpg", "folder", "a", "isPrivateFile", "true")
	a.put("open.png")
	for _, v := range []struct {
		path string
		want int
	}{
		{"/a/b.jpg?ik-s=21d7180f60f9199ee2a7381c3a86d997d9460ab9", 200},
		{"/a/b.jpg?tr=w-400&ik-s=99a0e7af847acaf094c935b60cf218f7023ae47a", 200},
		{"/tr:w-400/a/b.jpg?ik-s=01f5e1c384277567d350a3d933c3b601e2b50005", 200},
		{"/a/b.jpg?tr=w-400&ik-t=1767323345&ik-s=96d154c435f632ef6f22680d0a9e4cf4ab61d716", 200},
		{"/a/b.jpg?tr=w-400&ik-t=1767323344&ik-s=" + signURL(testPrivate, "a/b.jpg?tr=w-400", "1767323344"), 401},
		{"/a/b.jpg?ik-s=31d7180f60f9199ee2a7381c3a86d997d9460ab9", 401},
		{"/a/b.jpg", 401},
		{"/a/b.jpg?tr=w-400", 401},
		{"/tr:n-small/a/b.jpg", 200},
		{"/tr:n-small/tr:w-10/a/b.jpg", 401},
		{"/open.png", 200},
		{"/tr:w-10,h-10/open.png?updatedAt=1", 200},
		{"/open.png?ik-s=00", 401},
		{"/nothing.png", 404},
	} {
		req, err := http.NewRequest(http.MethodGet, a.Endpoint()+v.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := a.send(req)
		if r.status != v.want {
			t.Errorf("%s: %d, want %d", v.path, r.status, v.want)
		}
		if v.want == 200 && (string(r.body) != string(picture) || r.header.Get("Content-Type") != "image/png") {
			t.Errorf("%s: not the bytes that were uploaded (%s, %d bytes)", v.path, r.header.Get("Content-Type"), len(r.body))
		}
		if v.want == 404 && (string(r.body) != "Not Found" || r.header.Get("ik-error") == "") {
			t.Errorf("%s: %s %v", v.path, r.body, r.header)
		}
	}
}
