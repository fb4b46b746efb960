package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// SignWebhook makes both header sets of a webhook: the Standard Webhooks one and
// the older x-ik-signature. The key of both is the whole secret string, prefix and
// all, as in every official SDK; id is the webhook-id.
func SignWebhook(secret, id string, body []byte, at time.Time) http.Header {
	h := http.Header{}
	signStandard(h, []byte(secret), id, body, at)
	signLegacy(h, []byte(secret), body, at)
	return h
}

func signStandard(h http.Header, key []byte, id string, body []byte, at time.Time) {
	seconds := strconv.FormatInt(at.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", seconds)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac256(key, id+"."+seconds+".", body)))
}

func signLegacy(h http.Header, key, body []byte, at time.Time) {
	ms := strconv.FormatInt(at.UnixMilli(), 10)
	h.Set("x-ik-signature", "t="+ms+",v1="+hex.EncodeToString(mac256(key, ms+".", body)))
}

func mac256(key []byte, head string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(head))
	mac.Write(body)
	return mac.Sum(nil)
}

// specKey is the key by the letter of the Standard Webhooks specification, which
// ImageKit's SDKs do not use: the text after whsec_, decoded.
func specKey(secret string) []byte {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return []byte(secret)
	}
	return b
}

// sign makes the headers that settings ask for.
func (w *WebhookSettings) sign(secret, id string, body []byte, at time.Time) http.Header {
	key := []byte(secret)
	if w.SpecKey {
		key = specKey(secret)
	}
	h := http.Header{}
	if w.SignatureHeaders != "legacy" {
		signStandard(h, key, id, body, at)
	}
	if w.SignatureHeaders != "standard" {
		signLegacy(h, key, body, at)
	}
	return h
}
