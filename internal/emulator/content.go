package emulator

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"  // image.DecodeConfig reads these formats
	_ "image/jpeg" // by side effect
	_ "image/png"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/gabriel-vasile/mimetype"
	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"
)

// content is the bytes of an upload and what they say of themselves.
type content struct {
	bytes         []byte
	blob          string
	mime          string
	width, height int
	alpha         bool
}

// readContent takes the file field in whichever of its four forms it came.
func (e *Emulator) readContent(ctx context.Context, f *form) (*content, answer, bool) {
	b, err := f.content(ctx)
	var say saying
	switch {
	case errors.As(err, &say):
		return nil, refuse(http.StatusBadRequest, string(say)), true
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "Your request contains invalid file parameter. "+err.Error()), true
	}
	c := inspect(b)
	s := e.settings.Load()
	limit := s.MaxFileSize
	if strings.HasPrefix(c.mime, "video/") {
		limit = s.MaxVideoSize
	}
	if limit > 0 && int64(len(b)) > limit {
		return nil, refuse(http.StatusBadRequest, sayTooLarge), true
	}
	return c, answer{}, false
}

// saying is an error whose text is ImageKit's.
type saying string

func (s saying) Error() string { return string(s) }

func (f *form) content(ctx context.Context) ([]byte, error) {
	text := f.fields["file"]
	switch {
	case f.file != nil:
		part, err := f.file.Open()
		if err != nil {
			return nil, err
		}
		defer part.Close()
		return io.ReadAll(part)
	case text == "":
		return nil, saying(sayNoUploadFile)
	case strings.HasPrefix(text, "http://"), strings.HasPrefix(text, "https://"):
		return fetch(ctx, text)
	case strings.HasPrefix(text, "data:"):
		head, data, found := strings.Cut(text, ",")
		if !found || !strings.HasSuffix(head, ";base64") {
			return nil, errors.New("A data URI holds base64.")
		}
		text = data
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(text)
	}
	if err != nil {
		return nil, errors.New("It is neither bytes nor base64 nor a URL.")
	}
	return b, nil
}

// fetch gets a file by URL, from this machine only: the emulator must not become a
// way into anybody's network.
func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	dialer := &net.Dialer{Control: loopbackOnly}
	client := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("The URL could not be fetched: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("The URL answered %s.", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax))
	if err == nil && len(b) == bodyMax {
		return nil, saying(sayTooLarge)
	}
	return b, err
}

func loopbackOnly(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("only files on this machine are fetched, not %s", address)
	}
	return nil
}

// inspect reads type and sides from the bytes; names say nothing.
func inspect(b []byte) *content {
	kind, _, _ := strings.Cut(mimetype.Detect(b).String(), ";")
	c := &content{bytes: b, mime: kind}
	if config, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil {
		c.width, c.height = config.Width, config.Height
		c.alpha = hasAlpha(config.ColorModel)
	}
	return c
}

func hasAlpha(m color.Model) bool {
	if p, ok := m.(color.Palette); ok {
		for _, c := range p {
			if _, _, _, a := c.RGBA(); a != 0xffff {
				return true
			}
		}
		return false
	}
	return m == color.NRGBAModel || m == color.NRGBA64Model || m == color.AlphaModel || m == color.Alpha16Model
}
