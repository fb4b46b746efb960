package simulate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// people are those around an installation: what they have uploaded, and who they are.
type people struct {
	w *world

	mu    sync.Mutex // guards what follows
	files []*upload
	made  int // names drawn
}

// upload is a file that somebody knows of.
type upload struct {
	id, name, folder, user string
	at                     time.Time
	gone                   bool
}

func (u *upload) path() string { return strings.TrimSuffix(u.folder, "/") + "/" + u.name }

// knows adds a file.
func (p *people) knows(u *upload) *upload {
	if late := p.w.Shape.VisibleAfter; late > 0 {
		p.w.record.lie(u.id, u.at, u.at.Add(late))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = append(p.files, u)
	return u
}

// one is a file that is there, or nil.
func (p *people) one(d draw) *upload {
	here := p.here()
	if len(here) == 0 {
		return nil
	}
	// Recent ones come up more often.
	if d.chance(0.5) {
		return here[len(here)-1-d.IntN(min(3, len(here)))]
	}
	return here[d.IntN(len(here))]
}

func (p *people) here() []*upload {
	p.mu.Lock()
	defer p.mu.Unlock()
	var here []*upload
	for _, u := range p.files {
		if !u.gone {
			here = append(here, u)
		}
	}
	return here
}

func (p *people) user(d draw) string { return fmt.Sprintf("user-%d", d.IntN(p.w.Shape.Users)) }

// name is one that nobody has used.
func (p *people) name(d draw) (name, folder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	return fmt.Sprintf("file-%d.%s", p.made, one(d, "txt", "gif", "gif")), one(d, "/", "/a", "/a/b", "/c")
}

// token says that the bearer is this user.
func (p *people) token(user, secret string) http.Header {
	now := time.Now()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "iss": issuer, "aud": audience,
		"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(time.Hour).Unix()}).SignedString([]byte(secret))
	if err != nil {
		panic(err) // of a constant key
	}
	return http.Header{"Authorization": {"Bearer " + signed}, "Content-Type": {"application/json"}}
}

// call asks trueup as a signed-in user.
func (p *people) call(d draw, user, method, path string, body any) (said, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return said{}, err
	}
	return p.w.knock(d.Uint64(), asked{method: method, path: path, header: p.token(user, jwtSecret), body: raw})
}

// library asks ImageKit directly, as its dashboard does.
func (p *people) library(method, path string, body any) (said, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return said{}, err
		}
	}
	return roundTrip(p.w.ctx, p.w.imagekit.library, asked{method: method, path: path, body: raw, header: http.Header{
		"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(privateKey+":"))}, "Content-Type": {"application/json"}}})
}

// content is a file's bytes: a tiny picture or a little text, of some length.
func content(d draw, name string) []byte {
	body := bytes.Repeat([]byte("x"), 1+d.IntN(40))
	if strings.HasSuffix(name, ".gif") {
		head := []byte("GIF89a\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;")
		head[6], head[8] = byte(1+d.IntN(200)), byte(1+d.IntN(200))
		return append(head, body...)
	}
	return body
}

// send uploads to ImageKit; what comes back is the new file's id, or empty.
func (p *people) send(version string, fields map[string]string, signed bool, data []byte) string {
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	_ = m.SetBoundary("boundary-of-a-simulated-upload")
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		_ = m.WriteField(name, fields[name])
	}
	part, _ := m.CreateFormFile("file", fields["fileName"])
	_, _ = part.Write(data)
	_ = m.Close()
	h := http.Header{"Content-Type": {m.FormDataContentType()}}
	if !signed {
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(privateKey+":")))
	}
	answer, err := roundTrip(p.w.ctx, p.w.imagekit.library, asked{method: http.MethodPost, path: "/api/" + version + "/files/upload", header: h, body: form.Bytes()})
	if err != nil || answer.status != http.StatusOK {
		p.w.trace.say("people", "upload %s refused: %d %s", fields["fileName"], answer.status, answer.body)
		return ""
	}
	var file struct {
		ID string `json:"fileId"`
	}
	if json.Unmarshal(answer.body, &file) != nil {
		return ""
	}
	p.w.trace.say("people", "uploaded %s as %s", file.ID, fields["fileName"])
	return file.ID
}

func pathOf(parts ...string) string {
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "/" + strings.Join(parts, "/")
}
