package simulate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/emulator"
)

// post carries ImageKit's webhooks: it takes each one as the library sends it and decides
// when it arrives, how often, and whether at all.
type post struct {
	w *world

	mu     sync.Mutex // guards what follows
	caught []captured
}

// captured is a delivery as it went over the wire.
type captured struct {
	header http.Header
	body   []byte
	at     time.Time
	fileID string
	kind   string
}

// RoundTrip takes a webhook from the library; to the library every one has arrived.
func (c *post) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	c.carry(body)
	res := reply(http.StatusOK, "application/json")
	res.Body, res.Request = io.NopCloser(bytes.NewReader([]byte("{}"))), r
	return res, nil
}

// notice is what of a webhook's body the way there depends on.
type notice struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data struct {
		FileID string `json:"fileId"`
	} `json:"data"`
}

func readNotice(body []byte) (n notice) {
	_ = json.Unmarshal(body, &n)
	return n
}

// carry draws what happens to one webhook on its way, from what it is about.
func (c *post) carry(body []byte) {
	w, n := c.w, readNotice(body)
	d := newDraw(w.lot("webhook "+n.Type+" "+n.Data.FileID), 5)
	s := w.Shape
	if d.chance(s.DropRate) {
		w.reached.Hit("webhook/dropped")
		w.trace.say("post", "%s of %s is lost", n.Type, n.Data.FileID)
		return
	}
	copies := 1
	if d.chance(s.DuplicateRate) {
		w.reached.Hit("webhook/duplicate")
		copies += 1 + d.IntN(4)
	}
	for range copies {
		wait := d.span(5*time.Millisecond, time.Second)
		switch {
		case d.chance(s.ReorderRate):
			w.reached.Hit("webhook/reordered")
			wait = d.span(time.Second, time.Minute)
		case d.chance(s.LateRate):
			wait = s.Late
			if wait >= 24*time.Hour {
				w.reached.Hit("webhook/days-late")
			}
		}
		own := newDraw(d.Uint64(), 6)
		w.later(wait, func() { c.deliver(own, body) })
	}
}

// retries are ImageKit's waits between attempts, as far as a run follows them.
var retries = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// deliver sends it until it is taken, with a fresh signature each time.
func (c *post) deliver(d draw, body []byte) {
	for i := 0; ; i++ {
		status := c.attempt(d, body)
		if status/100 == 2 || i == len(retries) || sleep(c.w.ctx, retries[i]) != nil {
			return
		}
		c.w.reached.Hit("webhook/retried")
	}
}

func (c *post) attempt(d draw, body []byte) int {
	n := readNotice(body)
	header := c.signed(webhookSecret, n.ID, body)
	c.mu.Lock()
	c.caught = append(c.caught, captured{header, body, time.Now(), n.Data.FileID, n.Type})
	c.mu.Unlock()
	return c.knock(d, header, body, true)
}

func (c *post) signed(secret, id string, body []byte) http.Header {
	h := emulator.SignWebhook(secret, "msg_"+id, body, time.Now())
	switch c.w.Shape.Schemes {
	case "standard":
		h.Del("x-ik-signature")
	case "legacy":
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			h.Del(name)
		}
	}
	h.Set("Content-Type", "application/json")
	return h
}

// knock sends one delivery and writes down what it was told.
func (c *post) knock(d draw, header http.Header, body []byte, genuine bool) int {
	n, sent := readNotice(body), time.Now()
	answer, err := c.w.knock(d.Uint64(), asked{method: http.MethodPost, path: "/webhooks/imagekit", header: header, body: body})
	if errors.Is(err, errNobody) {
		return 0
	}
	a := check.Ack{Door: check.Webhook, SentAt: sent, Status: answer.status, Genuine: genuine, FileID: n.Data.FileID, Kind: n.Type, WebhookID: n.ID, Body: body}
	if a.WebhookID == "" {
		a.WebhookID = header.Get("webhook-id")
	}
	if err == nil {
		a.AnsweredAt = time.Now()
	}
	c.w.record.ack(a)
	c.w.trace.say("post", "%s of %s: %d", n.Type, n.Data.FileID, answer.status)
	return answer.status
}

// made is a webhook that the library did not send.
func made(kind, id, fileID string, more map[string]any) []byte {
	data := map[string]any{"fileId": fileID, "name": marker, "filePath": "/" + marker, "url": "https://evil.example/" + marker}
	for k, v := range more {
		data[k] = v
	}
	raw, _ := json.Marshal(map[string]any{"type": kind, "id": id, "created_at": time.Now().UTC().Format(time.RFC3339), "data": data})
	return raw
}

// unknownKind is a signed event of a type that nobody has heard of, with new fields.
func (c *post) unknownKind(d draw, p *people) {
	u := p.one(d)
	id := "not-a-file"
	if u != nil {
		id = u.id
	}
	c.w.reached.Hit("webhook/unknown-kind")
	c.deliver(d, made(one(d, "file.frobnicated", "video.transformation.ready", "x"), fmt.Sprintf("%x", d.Uint64()), id, map[string]any{"new": []int{1}}))
}

// hint is a signed update without a moment in it: only a look-up can answer it. It may be
// about a file that is gone, or one that never was.
func (c *post) hint(d draw, p *people) {
	p.mu.Lock()
	id := fmt.Sprintf("%024x", d.Uint64())
	if len(p.files) > 0 && d.chance(0.85) {
		id = p.files[d.IntN(len(p.files))].id
	}
	p.mu.Unlock()
	c.deliver(d, made("file.updated", fmt.Sprintf("%x", d.Uint64()), id, nil))
}

// replay sends a captured delivery again, byte by byte.
func (c *post) replay(d draw) {
	c.mu.Lock()
	if len(c.caught) == 0 {
		c.mu.Unlock()
		return
	}
	old := c.caught[d.IntN(len(c.caught))]
	c.mu.Unlock()
	c.w.reached.Hit("webhook/replayed")
	// Whoever's clock is ten minutes wrong may believe it for longer.
	c.knock(d, old.header.Clone(), old.body, time.Since(old.at) < 16*time.Minute)
}

// badSignature sends what nobody signed, or somebody else did.
func (c *post) badSignature(d draw, p *people) {
	id := fmt.Sprintf("%024x", d.Uint64())
	if u := p.one(d); u != nil && d.chance(0.5) {
		id = u.id
	}
	body := made(one(d, "file.deleted", "file.updated", "file.created"), fmt.Sprintf("forged-%x", d.Uint64()), id, nil)
	header := http.Header{"Content-Type": {"application/json"}}
	if d.chance(0.7) {
		header = c.signed("whsec_somebody-elses-secret-0123456789", "forged", body)
	}
	c.w.reached.Hit("webhook/bad-signature")
	c.knock(d, header, body, false)
}
