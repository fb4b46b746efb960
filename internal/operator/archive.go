package operator

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// An archive is dead letters as NDJSON: a header, a line for each letter, a trailer.
// Each line carries a hash over all letters up to it, so that a line changed, lost,
// added or moved is noticed at that line, and a file cut short at its end. The hash has
// no key: it guards against accidents, not against whoever may import anyway.
const (
	archiveFormat  = "trueup dead letters"
	archiveVersion = 1
	// archiveLine bounds a line: a letter's body is at most 1 MiB, a third more in
	// base64, beside its attempts.
	archiveLine = 16 << 20
)

type archiveHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

type archiveEntry struct {
	Letter json.RawMessage `json:"letter,omitempty"`
	Count  *int64          `json:"count,omitempty"` // in the trailer
	Chain  string          `json:"chain"`
}

// chainAfter is the hash after one more letter.
func chainAfter(chain string, letter []byte) string {
	h := sha256.New()
	h.Write([]byte(chain))
	h.Write(letter)
	return hex.EncodeToString(h.Sum(nil))
}

// archiveWriter writes an archive. Without Close it has no trailer, and nobody takes it
// for whole.
type archiveWriter struct {
	enc   *json.Encoder
	chain string
	count int64
}

func newArchiveWriter(w io.Writer) (*archiveWriter, error) {
	a := &archiveWriter{enc: json.NewEncoder(w)}
	a.enc.SetEscapeHTML(false)
	return a, a.enc.Encode(archiveHeader{archiveFormat, archiveVersion})
}

func (a *archiveWriter) add(d event.DeadLetter) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		return err
	}
	raw := bytes.TrimSpace(buf.Bytes())
	a.chain, a.count = chainAfter(a.chain, raw), a.count+1
	return a.enc.Encode(archiveEntry{Letter: raw, Chain: a.chain})
}

func (a *archiveWriter) close() error {
	return a.enc.Encode(archiveEntry{Count: &a.count, Chain: a.chain})
}

// badLine is what is wrong with an archive, and where.
type badLine struct {
	line int
	why  string
}

func (b *badLine) Error() string { return fmt.Sprintf("line %d: %s", b.line, b.why) }

// archiveReader reads an archive and believes nothing: what it hands over stood in a
// line whose hash is right. Only after next has returned io.EOF is the whole right.
type archiveReader struct {
	in    *bufio.Reader
	line  int
	chain string
	count int64
}

func newArchiveReader(r io.Reader) *archiveReader {
	return &archiveReader{in: bufio.NewReaderSize(r, 64<<10)}
}

func (a *archiveReader) bad(format string, args ...any) error {
	return &badLine{a.line, fmt.Sprintf(format, args...)}
}

// next is the next letter; io.EOF after the trailer.
func (a *archiveReader) next() (event.DeadLetter, error) {
	if a.line == 0 {
		if err := a.header(); err != nil {
			return event.DeadLetter{}, err
		}
	}
	raw, err := a.read()
	if errors.Is(err, io.EOF) {
		return event.DeadLetter{}, a.bad("the file ends without its last line, so it is not whole")
	}
	if err != nil {
		return event.DeadLetter{}, err
	}
	var e archiveEntry
	if err := strictly(raw, &e); err != nil || (e.Letter == nil) == (e.Count == nil) {
		return event.DeadLetter{}, a.bad("this is neither a dead letter nor the last line of an export")
	}
	if e.Count != nil {
		return event.DeadLetter{}, a.trailer(e)
	}
	if chain := chainAfter(a.chain, e.Letter); chain != e.Chain {
		return event.DeadLetter{}, a.bad("its hash does not fit: this line was changed, or one before it is missing")
	}
	a.chain, a.count = e.Chain, a.count+1
	return a.letter(e.Letter)
}

func (a *archiveReader) header() error {
	raw, err := a.read()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var h archiveHeader
	switch err := strictly(raw, &h); {
	case err != nil || h.Format != archiveFormat:
		return a.bad("this is not an export of dead letters")
	case h.Version != archiveVersion:
		return a.bad("the export has version %d, and this trueup reads %d", h.Version, archiveVersion)
	}
	return nil
}

func (a *archiveReader) trailer(e archiveEntry) error {
	if *e.Count != a.count || e.Chain != a.chain {
		return a.bad("the last line tells of %d letters and %d stand before it, or their hash differs", *e.Count, a.count)
	}
	if _, err := a.read(); !errors.Is(err, io.EOF) {
		return a.bad("something stands behind the last line")
	}
	return io.EOF
}

func (a *archiveReader) letter(raw []byte) (event.DeadLetter, error) {
	var d event.DeadLetter
	if err := strictly(raw, &d); err != nil {
		return d, a.bad("the dead letter cannot be read: %v", err)
	}
	if why := implausible(d); why != "" {
		return d, a.bad("%s", why)
	}
	return d, nil
}

// read is one line without its end. A last line without a newline is cut short.
func (a *archiveReader) read() ([]byte, error) {
	a.line++
	var line []byte
	for {
		part, err := a.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > archiveLine:
			return nil, a.bad("it is longer than %d bytes", archiveLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, a.bad("it is cut short")
		}
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
}

// strictly decodes one JSON value with known fields.
func strictly(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// implausible says what in a letter cannot have come from an export; empty when it all
// can.
func implausible(d event.DeadLetter) string {
	for name, id := range map[string]string{"id": d.ID, "eventId": d.EventID} {
		if _, err := ulid.ParseStrict(id); err != nil {
			return name + " is not one of ours"
		}
	}
	switch {
	case d.FileID != "" && !file.ValidID(d.FileID):
		return "fileId is none"
	case !slices.Contains([]event.Source{event.Client, event.Webhook, event.Replay, event.Reconcile}, d.Source):
		return "source is none that we know"
	case !slices.Contains([]event.Source{event.Client, event.Webhook, event.Reconcile}, d.Origin):
		return "origin is none that we know"
	case check(event.Filter{Class: d.Class}) != nil || d.Class == "":
		return "class is none that we know"
	case check(event.Filter{State: d.State}) != nil || d.State == "":
		return "state is none that we know"
	case d.AcceptedAt.IsZero() || d.CreatedAt.IsZero():
		return "acceptedAt or createdAt is missing"
	}
	return ""
}
