package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// Sign sets both header sets on h as ImageKit does, with the secret's raw reading.
// `trueup trigger` and tests send with it.
func Sign(h http.Header, secret, id string, at time.Time, body []byte) {
	seconds := strconv.FormatInt(at.Unix(), 10)
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, seconds)
	h.Set(HeaderSignature, "v1,"+base64.StdEncoding.EncodeToString(sum([]byte(secret), id+"."+seconds+".", body)))
	SignLegacy(h, secret, at, body)
}

// SignLegacy sets x-ik-signature alone.
func SignLegacy(h http.Header, secret string, at time.Time, body []byte) {
	millis := strconv.FormatInt(at.UnixMilli(), 10)
	h.Set(HeaderLegacy, "t="+millis+",v1="+hex.EncodeToString(sum([]byte(secret), millis+".", body)))
}

func sum(key []byte, head string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(head))
	h.Write(body)
	return h.Sum(nil)
}
