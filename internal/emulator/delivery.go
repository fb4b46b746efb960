package emulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// deliver is GET /{account}/…: the bytes as uploaded, whatever transformation is
// asked for.
func (e *Emulator) deliver(r *http.Request) answer {
	path, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"+e.AccountID))
	if err != nil {
		return notDelivered("ENOENT - The path cannot be read")
	}
	named := namedOnly(path, r.URL.Query().Get("tr"))
	e.mu.RLock()
	f := e.lib.at(withoutTransformations(path))
	e.mu.RUnlock()
	if f == nil {
		return notDelivered("ENOENT - No file was found at the specified path")
	}
	v := &f.version
	if i := f.earlier(r.URL.Query().Get("ik-obj-version")); i >= 0 {
		v = &f.Earlier[i]
	}
	switch {
	case !e.permits(r, v.Private && !named):
		return answer{status: http.StatusUnauthorized, raw: []byte("Unauthorized"), header: http.Header{"Content-Type": {"text/plain"}}}
	case v.Draft:
		return notDelivered("ENOENT - The file is not published")
	}
	return answer{status: http.StatusOK, serve: func(w http.ResponseWriter, r *http.Request) { e.serveBytes(w, r, v) }}
}

func notDelivered(why string) answer {
	return answer{status: http.StatusNotFound, raw: []byte("Not Found"), header: http.Header{"Ik-Error": {why}, "Content-Type": {"text/plain"}}}
}

func (e *Emulator) serveBytes(w http.ResponseWriter, r *http.Request, v *version) {
	var from io.ReadSeeker
	if v.Blob == "generated" {
		from = bytes.NewReader(plainPNG(v.Width, v.Height))
	} else {
		f, err := e.blobs.open(v.Blob)
		if err != nil {
			http.Error(w, "Not Found", http.StatusNotFound)
			return
		}
		defer f.Close()
		from = f
	}
	h := w.Header()
	h.Set("Content-Type", v.MIME)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Server-Timing", "download;dur=0")
	h.Set("ETag", `"`+v.ID+`"`)
	http.ServeContent(w, r, "", time.UnixMilli(v.Uploaded), from)
}

// withoutTransformations takes tr:… segments out of a path.
func withoutTransformations(path string) string {
	if !strings.Contains(path, "/tr:") {
		return path
	}
	var keep []string
	for segment := range strings.SplitSeq(path, "/") {
		if !strings.HasPrefix(segment, "tr:") {
			keep = append(keep, segment)
		}
	}
	return strings.Join(keep, "/")
}

// namedOnly: a named transformation is asked for and no other, which works for
// private files without a signature.
func namedOnly(path, query string) bool {
	found := false
	for segment := range strings.SplitSeq(path, "/") {
		if chain, isChain := strings.CutPrefix(segment, "tr:"); isChain {
			if !strings.HasPrefix(chain, "n-") {
				return false
			}
			found = true
		}
	}
	if query == "" {
		return found
	}
	return strings.HasPrefix(query, "n-")
}

// permits checks a signed URL; one without a signature is good unless needed.
func (e *Emulator) permits(r *http.Request, needed bool) bool {
	q := r.URL.Query()
	signature := q.Get("ik-s")
	if signature == "" {
		return !needed
	}
	expiry := q.Get("ik-t")
	if expiry != "" {
		at, err := strconv.ParseInt(expiry, 10, 64)
		if err != nil || e.Now().Unix() > at {
			return false
		}
	}
	rest := strings.TrimPrefix(r.URL.EscapedPath(), "/"+e.AccountID+"/")
	if query := withoutSignature(r.URL.RawQuery); query != "" {
		rest += "?" + query
	}
	return hmac.Equal([]byte(signURL(e.PrivateKey, rest, expiry)), []byte(signature))
}

// withoutSignature takes ik-t and ik-s out of a raw query and leaves the rest as it
// was written, because that is what was signed.
func withoutSignature(raw string) string {
	var keep []string
	for pair := range strings.SplitSeq(raw, "&") {
		if !strings.HasPrefix(pair, "ik-t=") && !strings.HasPrefix(pair, "ik-s=") {
			keep = append(keep, pair)
		}
	}
	return strings.Join(keep, "&")
}

// signURL is ik-s for what follows the URL endpoint and its slash; expiry is the
// text of ik-t, empty for none.
func signURL(privateKey, rest, expiry string) string {
	if expiry == "" {
		expiry = "9999999999"
	}
	mac := hmac.New(sha1.New, []byte(privateKey))
	mac.Write([]byte(rest + expiry))
	return hex.EncodeToString(mac.Sum(nil))
}
