package campaign

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// shelf is ImageKit's stand-in as an application's own server sees it, over HTTP and
// with the private key. It keeps nothing of what it is answered.
type shelf struct {
	base, key string
	client    *http.Client
}

func newShelf(base, key string) *shelf {
	return &shelf{base: base, key: key, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
}

func (s *shelf) close() { s.client.CloseIdleConnections() }

// call sends JSON and reads JSON; into may be nil.
func (s *shelf) call(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	kind := ""
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload, kind = bytes.NewReader(raw), "application/json"
	}
	return s.send(ctx, method, path, kind, payload, into)
}

func (s *shelf) send(ctx context.Context, method, path, kind string, body io.Reader, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, s.base+path, body)
	if err != nil {
		return err
	}
	r.SetBasicAuth(s.key, "")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, raw)
	case into == nil:
		return nil
	}
	return json.Unmarshal(raw, into)
}

// page is one page of everything there is, oldest first, as raw records.
func (s *shelf) page(ctx context.Context, skip int) ([]json.RawMessage, error) {
	q := url.Values{"limit": {"1000"}, "skip": {fmt.Sprint(skip)}, "type": {"file"}, "sort": {"ASC_CREATED"}}
	var page []json.RawMessage
	return page, s.call(ctx, http.MethodGet, "/v1/files?"+q.Encode(), nil, &page)
}

// pages hands over the whole library, page by page.
func (s *shelf) pages(ctx context.Context, each func(page []json.RawMessage) error) error {
	for skip := 0; ; skip += 1000 {
		page, err := s.page(ctx, skip)
		if err != nil {
			return err
		}
		if err := each(page); err != nil || len(page) < 1000 {
			return err
		}
	}
}

func (s *shelf) erase(ctx context.Context, id string) error {
	return s.call(ctx, http.MethodDelete, "/v1/files/"+id, nil, nil)
}

func (s *shelf) retag(ctx context.Context, id string, tags ...string) error {
	return s.call(ctx, http.MethodPatch, "/v1/files/"+id+"/details", map[string]any{"tags": tags}, nil)
}

func (s *shelf) rename(ctx context.Context, path, name string) error {
	return s.call(ctx, http.MethodPut, "/v1/files/rename", map[string]string{"filePath": path, "newFileName": name}, nil)
}

// put uploads a picture that differs with n to exactly this path, over what stands there,
// and returns its id.
func (s *shelf) put(ctx context.Context, folder, name string, n uint64) (id string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for field, value := range map[string]string{"fileName": name, "folder": folder, "useUniqueFileName": "false", "overwriteFile": "true"} {
		err = errors.Join(err, w.WriteField(field, value))
	}
	part, errPart := w.CreateFormFile("file", name)
	if err = errors.Join(err, errPart); err != nil {
		return "", err
	}
	_, err = part.Write(pictureOf(n))
	if err = errors.Join(err, w.Close()); err != nil {
		return "", err
	}
	var made struct {
		FileID string `json:"fileId"`
	}
	return made.FileID, s.send(ctx, http.MethodPost, "/api/v1/files/upload", w.FormDataContentType(), &b, &made)
}

func pictureOf(n uint64) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 8+int(n%24), 8+int(n>>8%24)))
	m.Set(0, 0, color.RGBA{R: uint8(n), G: uint8(n >> 8), B: uint8(n >> 16), A: 255})
	var b bytes.Buffer
	_ = png.Encode(&b, m)
	return b.Bytes()
}

// catalogue is what the senders need to know of the run's files, by their numbers.
type catalogue struct {
	ids     [][12]byte
	created []int64 // epoch ms
	updated []int64 // the same, after the history
}

const millionFolder = "/million"

// makeLibrary makes the run's files and gives them their histories; no webhook tells of
// these, the plan's events do.
func (p *plan) makeLibrary(ctx context.Context, s *shelf) (*catalogue, error) {
	// All within the claim window, so that reports can own them.
	if err := s.call(ctx, http.MethodPost, "/_emulator/files/generate", map[string]any{"count": p.files, "folder": millionFolder, "spread": "10m"}, nil); err != nil {
		return nil, err
	}
	c := &catalogue{}
	var names []string // of those with a history, by file
	err := s.pages(ctx, func(page []json.RawMessage) error {
		for _, raw := range page {
			name, err := c.add(raw)
			if err != nil {
				return err
			}
			if p.historyOf(len(c.ids)-1) == untouched {
				name = ""
			}
			names = append(names, name)
		}
		return nil
	})
	if err == nil && len(c.ids) != p.files {
		err = fmt.Errorf("the library shows %d files, want %d", len(c.ids), p.files)
	}
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for file, name := range names {
		if name != "" {
			g.Go(func() error { return p.befall(ctx, s, c, file, name) })
		}
	}
	return c, g.Wait()
}

// add notes one record and returns the file's name.
func (c *catalogue) add(raw json.RawMessage) (name string, err error) {
	var f struct {
		FileID, Name         string
		CreatedAt, UpdatedAt time.Time
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return "", err
	}
	id, err := hex.DecodeString(f.FileID)
	if err != nil || len(id) != 12 {
		return "", fmt.Errorf("file id %q is not 24 hex digits", f.FileID)
	}
	c.ids = append(c.ids, [12]byte(id))
	c.created = append(c.created, f.CreatedAt.UnixMilli())
	c.updated = append(c.updated, f.UpdatedAt.UnixMilli())
	return f.Name, nil
}

func (c *catalogue) id(file int) string { return hex.EncodeToString(c.ids[file][:]) }

// befall gives one file its history.
func (p *plan) befall(ctx context.Context, s *shelf, c *catalogue, file int, name string) (err error) {
	id := c.id(file)
	switch p.historyOf(file) {
	case erased:
		return s.erase(ctx, id)
	case retagged:
		err = s.retag(ctx, id, "summer", fmt.Sprint("n", p.draw(file, "tag")%100))
	case renamed:
		err = s.rename(ctx, millionFolder+"/"+name, "renamed-"+name)
	case overwritten:
		var over string
		if over, err = s.put(ctx, millionFolder, name, p.draw(file, "picture")); err == nil && over != id {
			err = fmt.Errorf("overwriting %s made another file, %s", id, over)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var now struct{ UpdatedAt time.Time }
	if err := s.call(ctx, http.MethodGet, "/v1/files/"+id+"/details", nil, &now); err != nil {
		return err
	}
	c.updated[file] = now.UpdatedAt.UnixMilli()
	return nil
}

// unverified stands in every body that a client or webhook sends about a file, and must
// never reach the table.
const unverified = "marker-that-nobody-verified"

// body is an event as it is sent; all copies of an event are the same bytes.
func (p *plan) body(c *catalogue, h hint) []byte {
	var b bytes.Buffer
	id := ""
	if len(c.ids) > 0 {
		id = c.id(h.file)
	}
	switch h.door {
	case byReport:
		fmt.Fprintf(&b, `{"fileId":%q,"url":"https://%s.invalid/x.jpg","n":%d`, id, unverified, h.number)
		if h.plant != "" {
			fmt.Fprintf(&b, `,"plant":%q`, h.plant)
		}
		b.WriteString("}")
	case byWebhook:
		fmt.Fprintf(&b, `{"id":%q,"type":%q,"created_at":%q,"n":%d,"data":{"type":"file","fileId":%q`,
			p.webhookID(h.number), h.kind, stamp(c.created[h.file]), h.number, id)
		if h.kind != "file.deleted" {
			fmt.Fprintf(&b, `,"name":"%s.jpg","filePath":"/%s.jpg","url":"https://%s.invalid/x.jpg","size":1`, unverified, unverified, unverified)
		}
		switch p.draw(h.number, "age") % 4 {
		case 0: // as fresh as the file is
			fmt.Fprintf(&b, `,"updatedAt":%q`, stamp(c.updated[h.file]))
		case 1: // old news
			fmt.Fprintf(&b, `,"updatedAt":%q`, stamp(c.created[h.file]))
		case 2: // news that ImageKit has not heard itself
			fmt.Fprintf(&b, `,"updatedAt":%q`, stamp(c.updated[h.file]+60_000))
		}
		if h.plant != "" {
			fmt.Fprintf(&b, `,"plant":%q`, h.plant)
		}
		b.WriteString("}}")
	case byStream:
		fmt.Fprintf(&b, "no envelope, n=%d;%s", h.number, strings.Repeat("\x00\xff", 20))
	}
	return b.Bytes()
}

func (p *plan) webhookID(number int) string { return fmt.Sprintf("evt-%d-%d", p.seed, number) }

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
