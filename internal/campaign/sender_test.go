package campaign

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/internal/check"
)

// client is a way for clients and forwarded webhooks to one ingest.
type client struct {
	base string // http://host:port
	http *http.Client
}

// answered is what came back; status 0: nothing did.
type answered struct {
	status int
	header http.Header
	body   []byte
}

const senderPatience = 4 * time.Second

func (r *rig) addClients() error {
	for i, addr := range r.public {
		way, err := r.way(fmt.Sprintf("client-ingest%d", i+1), addr)
		if err != nil {
			return err
		}
		r.clients = append(r.clients, newClient(way))
	}
	return nil
}

func newClient(addr string) *client {
	return &client{base: "http://" + addr, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second},
		Timeout:   senderPatience,
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

func (c *client) send(ctx context.Context, method, path string, header http.Header, body []byte) answered {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return answered{body: []byte(err.Error())}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return answered{body: []byte(err.Error())}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answered{body: []byte(err.Error())} // half an answer tells nothing
	}
	return answered{status: resp.StatusCode, header: resp.Header, body: raw}
}

// bearer is a signed-in user's header.
func (r *rig) bearer(user string) http.Header {
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "iss": r.keys.issuer, "aud": r.keys.audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}).SignedString([]byte(r.keys.jwt))
	if err != nil {
		r.t.Fatal(err)
	}
	return http.Header{"Authorization": {"Bearer " + token}}
}

// Report reports a file as user, once, by way of the ingest-th ingest (counting on), and
// keeps what was answered.
func (r *rig) Report(ctx context.Context, ingest int, user, fileID string) check.Ack {
	return r.Reports(ctx, ingest, user, []string{fileID})[0]
}

// Reports is Report of up to 100 files in one request: an array where there are several.
func (r *rig) Reports(ctx context.Context, ingest int, user string, fileIDs []string) []check.Ack {
	acks, items := make([]check.Ack, len(fileIDs)), make([]json.RawMessage, len(fileIDs))
	sent := time.Now()
	for i, id := range fileIDs {
		items[i], _ = json.Marshal(map[string]string{"fileId": id, "url": "https://" + senderWord + ".example/" + id})
		acks[i] = check.Ack{Door: check.Report, SentAt: sent, Genuine: true, FileID: id, User: user, Body: items[i]}
	}
	body := []byte(items[0])
	if len(items) > 1 {
		body, _ = json.Marshal(items)
	}
	a := r.client(ingest).send(ctx, http.MethodPost, "/save-metadata", r.bearer(user), body)
	if a.status != 0 {
		receipts(acks, a)
	}
	r.noteAcks(acks...)
	return acks
}

// receipts writes an answer into the acks it is about.
func receipts(acks []check.Ack, a answered) {
	var one struct {
		ReportID string `json:"reportId"`
		Reports  []struct {
			ReportID string `json:"reportId"`
		} `json:"reports"`
	}
	_ = json.Unmarshal(a.body, &one)
	for i := range acks {
		acks[i].Status, acks[i].AnsweredAt = a.status, time.Now()
		switch {
		case len(one.Reports) == len(acks):
			acks[i].ReportID = one.Reports[i].ReportID
		case len(acks) == 1:
			acks[i].ReportID = one.ReportID
		}
	}
}

// client is the way whose turn it is.
func (r *rig) client(n int) *client { return r.clients[n%len(r.clients)] }

// senderWord stands in what senders say and must never reach the table.
const senderWord = "planted-by-sender"

// RawWebhook sends a signed webhook that names the file and says of it what is not true.
// The same id may be sent again: a replay.
func (r *rig) RawWebhook(ctx context.Context, ingest int, id, kind, fileID string) check.Ack {
	body := webhookBody(id, kind, fileID)
	a := check.Ack{Door: check.Webhook, SentAt: time.Now(), Genuine: true, FileID: fileID, Kind: kind, WebhookID: id, Body: body}
	got := r.client(ingest).send(ctx, http.MethodPost, "/webhooks/imagekit", signed(r.keys.webhook, "msg_"+id, body, time.Now()), body)
	if got.status != 0 {
		a.Status, a.AnsweredAt = got.status, time.Now()
	}
	r.noteAcks(a)
	return a
}

// ForgedWebhook is the same with a signature of somebody else's.
func (r *rig) ForgedWebhook(ctx context.Context, ingest int, id, kind, fileID string) check.Ack {
	body := webhookBody(id, kind, fileID)
	a := check.Ack{Door: check.Webhook, SentAt: time.Now(), FileID: fileID, Kind: kind, WebhookID: id, Body: body}
	got := r.client(ingest).send(ctx, http.MethodPost, "/webhooks/imagekit", signed("whsec_c29tZWJvZHktZWxzZS1zb21lYm9keQ==", "msg_"+id, body, time.Now()), body)
	if got.status != 0 {
		a.Status, a.AnsweredAt = got.status, time.Now()
	}
	r.noteAcks(a)
	return a
}

func webhookBody(id, kind, fileID string) []byte {
	body, _ := json.Marshal(map[string]any{"type": kind, "id": id, "created_at": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		"data": map[string]any{"fileId": fileID, "name": senderWord + ".jpg", "filePath": "/" + senderWord + ".jpg", "url": "https://" + senderWord + ".example/x.jpg", "tags": []string{senderWord}}})
	return body
}

// signed makes both header sets of a webhook, written after ImageKit's documentation
// and without the emulator's or trueup's code.
func signed(secret, id string, body []byte, at time.Time) http.Header {
	mac := func(parts ...string) []byte {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(strings.Join(parts, ".")))
		return h.Sum(nil)
	}
	seconds, ms := strconv.FormatInt(at.Unix(), 10), strconv.FormatInt(at.UnixMilli(), 10)
	h := http.Header{}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", seconds)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(id, seconds, string(body))))
	h.Set("X-Ik-Signature", "t="+ms+",v1="+hex.EncodeToString(mac(ms, string(body))))
	return h
}

// UploadTokens asks for n signed V2 uploads of user, which carry his ticket. Each is
// good once, for an hour.
func (r *rig) UploadTokens(ctx context.Context, user string, names []string) ([]map[string]string, error) {
	var all []map[string]string
	for i, name := range names {
		body, _ := json.Marshal(map[string]any{"uploadPayload": map[string]any{"fileName": name, "useUniqueFileName": false}})
		a := r.client(i).send(ctx, http.MethodPost, "/generate-upload-token", r.bearer(user), body)
		var out struct {
			Token   string            `json:"token"`
			Payload map[string]string `json:"uploadPayload"`
		}
		if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("upload token for %s: %d %s", user, a.status, a.body)
		}
		out.Payload["token"] = out.Token
		all = append(all, out.Payload)
	}
	return all, nil
}

func (r *rig) noteAcks(acks ...check.Ack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks = append(r.acks, acks...)
}

// Acks are all answers so far.
func (r *rig) Acks() []check.Ack {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]check.Ack{}, r.acks...)
}
