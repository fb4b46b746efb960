package answer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/trueup/trueup/internal/file"
)

// asSent takes JSON as whoever answers may write it: of a name that occurs twice the last
// one counts, and bytes that are no UTF-8 are replaced.
func asSent() jsontext.Options {
	return json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// remote is a file as ImageKit writes it. Every field may be absent or null;
// fields that are not listed are ignored; a listed field of the wrong type makes
// the whole file unbelievable.
type remote struct {
	Type           *string        `json:"type"`
	FileID         *string        `json:"fileId"`
	Name           *string        `json:"name"`
	FilePath       *string        `json:"filePath"`
	URL            *string        `json:"url"`
	Thumbnail      *string        `json:"thumbnail"`
	FileType       *string        `json:"fileType"`
	MIME           *string        `json:"mime"`
	Size           quantity       `json:"size"`
	Width          quantity       `json:"width"`
	Height         quantity       `json:"height"`
	Tags           []*string      `json:"tags"`
	CustomMetadata jsontext.Value `json:"customMetadata"`
	VersionInfo    *struct {
		ID   *string `json:"id"`
		Name *string `json:"name"`
	} `json:"versionInfo"`
	IsPrivateFile *bool   `json:"isPrivateFile"`
	CreatedAt     *string `json:"createdAt"`
	UpdatedAt     *string `json:"updatedAt"`
}

// quantity is a number that may be written as a float. What is no whole number
// between 0 and 2^53 (an SVG's width of 12.5, say) counts as not said: a column
// we cannot fill must not keep a file from its row. What is no number at all is
// an error.
type quantity struct {
	value int64
	said  bool
}

func (q *quantity) UnmarshalJSON(raw []byte) error {
	*q = quantity{}
	if string(raw) == "null" {
		return nil
	}
	if len(raw) == 0 || !strings.ContainsRune("-0123456789", rune(raw[0])) {
		return errors.New("a size, width or height is no number")
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err == nil && f >= 0 && f <= 1<<53 && f == math.Trunc(f) {
		q.value, q.said = int64(f), true
	}
	return nil
}

func (q quantity) int64() *int64 {
	if !q.said {
		return nil
	}
	return &q.value
}

func (q quantity) int32() *int32 {
	if !q.said || q.value > math.MaxInt32 {
		return nil
	}
	v := int32(q.value)
	return &v
}

// One reads the answer to a look-up by id: exactly one JSON object, the current
// version of the very file that was asked about.
func (a *Reader) One(body []byte, id string) (file.Snapshot, error) {
	s, err := a.snapshot(body)
	if err == nil && s.ID != id {
		return file.Snapshot{}, errors.New("the answer is about another file")
	}
	return s, err
}

// snapshot reads one file, or says why it cannot be believed. Its errors never
// repeat what ImageKit sent.
func (a *Reader) snapshot(raw []byte) (file.Snapshot, error) {
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return file.Snapshot{}, errors.New("not a JSON object")
	}
	var r remote
	if err := json.Unmarshal(raw, &r, asSent()); err != nil {
		return file.Snapshot{}, notJSON(err)
	}
	if r.Type == nil || *r.Type != "file" {
		// File versions and folders are no files; their rows would overwrite one.
		return file.Snapshot{}, errors.New(`its type is not "file"`)
	}
	if r.FileID == nil || !file.ValidID(*r.FileID) {
		return file.Snapshot{}, errors.New("it has no usable fileId")
	}
	created, updated, err := r.times()
	if err != nil {
		return file.Snapshot{}, err
	}
	return a.assemble(&r, created, updated)
}

func (a *Reader) assemble(r *remote, created, updated time.Time) (file.Snapshot, error) {
	address := withoutQuery(r.URL)
	if address == "" {
		return file.Snapshot{}, errors.New("it has no url")
	}
	metadata, ticket, err := a.metadata(r.CustomMetadata)
	if err != nil {
		return file.Snapshot{}, err
	}
	tags, tickets := a.tags(r.Tags)
	if ticket != "" && !slices.Contains(tickets, ticket) {
		tickets = append(tickets, ticket)
	}
	s := file.Snapshot{
		ID: *r.FileID, URL: address,
		Name: storable(r.Name), Path: storable(r.FilePath), Type: storable(r.FileType), MIME: storable(r.MIME),
		SizeBytes: r.Size.int64(), Width: r.Width.int32(), Height: r.Height.int32(),
		ThumbnailURL: steadyURL(r.Thumbnail),
		Tags:         tags, CustomMetadata: metadata, Tickets: tickets,
		IsPrivate: r.IsPrivateFile, CreatedAt: created, UpdatedAt: updated,
	}
	if v := r.VersionInfo; v != nil {
		s.VersionID = storable(v.ID)
		s.FirstVersion = (v.ID != nil && *v.ID == s.ID) || (v.Name != nil && *v.Name == "Version 1")
	}
	return s, nil
}

func (r *remote) times() (created, updated time.Time, err error) {
	if created, err = moment("createdAt", r.CreatedAt); err != nil {
		return
	}
	updated, err = moment("updatedAt", r.UpdatedAt)
	return
}

// moment reads a time to the microsecond, which is what a column holds: a finer
// one would never equal what was stored.
func moment(field string, text *string) (time.Time, error) {
	if text == nil {
		return time.Time{}, fmt.Errorf("it has no %s", field)
	}
	t, err := time.Parse(time.RFC3339Nano, *text)
	// In UTC: the last hour of 9999 elsewhere may be one that no JSON can write.
	if t = t.UTC(); err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("its %s is no time", field)
	}
	return t.Truncate(time.Microsecond), nil
}

// tags parts ownership tickets from the file's own tags. ImageKit keeps 500 characters
// of tags; whoever answers in its place may send a megabyte of tickets.
func (a *Reader) tags(all []*string) (own, tickets []string) {
	var seen map[string]bool
	for _, tag := range all {
		switch {
		case tag == nil:
		case !a.LooksLikeTicket(*tag):
			own = append(own, withoutNUL(*tag))
		case !seen[*tag]:
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[*tag], tickets = true, append(tickets, *tag)
		}
	}
	return own, tickets
}

func withoutQuery(address *string) string {
	if address == nil {
		return ""
	}
	bare, _, _ := strings.Cut(*address, "#")
	bare, _, _ = strings.Cut(bare, "?")
	return withoutNUL(bare)
}

// steadyURL drops from a thumbnail's query what changes without the thumbnail
// changing (time of update, signature); else no repeat would ever be unchanged.
// The rest, such as tr=n-ik_ml_thumbnail, makes it a thumbnail and stays.
func steadyURL(address *string) *string {
	if address == nil || *address == "" {
		return nil
	}
	bare, _, _ := strings.Cut(*address, "#")
	bare, query, _ := strings.Cut(bare, "?")
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(key); err == nil {
			key = name
		}
		switch key {
		case "", "updatedAt", "ik-s", "ik-t", "ik-sdk-version":
		default:
			kept = append(kept, pair)
		}
	}
	if len(kept) > 0 {
		bare += "?" + strings.Join(kept, "&")
	}
	bare = withoutNUL(bare)
	return &bare
}

// notJSON keeps an error's kind and place, and drops the value that it might quote. The
// places are those of our own fields.
func notJSON(err error) error {
	var syntax *jsontext.SyntacticError
	var kind *json.SemanticError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not one whole JSON value (byte %d)", syntax.ByteOffset)
	case errors.As(err, &kind):
		return fmt.Errorf("a wrong type in field %q", strings.TrimPrefix(string(kind.JSONPointer), "/"))
	}
	return err
}
