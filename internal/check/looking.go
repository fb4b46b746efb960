package check

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"
)

// looking is one look at evidence: the evidence, an index of what does not change any
// more, and the verdict that grows.
type looking struct {
	*Evidence
	*known
	phase   Phase
	verdict *Verdict
	now     Invariant
	// live is the most rows that ever stood, releases are those of the fuse.
	live     int
	releases []time.Time
	// stood is, by file, the last dump in which it had a row.
	stood map[string]time.Time
}

func (l *looking) wrong(subject, format string, args ...any) {
	l.verdict.Violations = append(l.verdict.Violations, Violation{l.now, subject, fmt.Sprintf(format, args...)})
}

// count says that so many things were looked at.
func (l *looking) count(what string, n int) { l.verdict.Counts[string(l.now)+"."+what] += int64(n) }

// known indexes the parts of the evidence that only grow. Reading the same evidence
// again reads what is new.
type known struct {
	read struct{ acks, changes, requests, hands int }

	settings *Settings
	opener   *opener

	absent  map[string][]*Request // a look-up by id said that there is no such file
	present map[string][]*Request // a look-up by id showed the file
	seenAny []*Request            // present, of all files, and GET /v1/files?limit=1
	hands   map[string][]Hand     // by file; "" is all rows
	// announced are the moments at which a signed file.deleted was sent, by file.
	announced map[string][]time.Time
	files     map[string]*story
	unread    []string // changes that do not read
}

// story is what became of one file in ImageKit.
type story struct {
	changes  []Change
	versions []*projection // one per change; nil for deleted, or not known
}

func newKnown() *known {
	return &known{absent: map[string][]*Request{}, present: map[string][]*Request{}, hands: map[string][]Hand{},
		announced: map[string][]time.Time{}, files: map[string]*story{}}
}

func (k *known) learn(e *Evidence) {
	if k.settings == nil {
		k.settings, k.opener = &e.Settings, newOpener(&e.Settings)
	}
	for ; k.read.requests < len(e.Requests); k.read.requests++ {
		k.request(&e.Requests[k.read.requests])
	}
	for ; k.read.hands < len(e.Hands); k.read.hands++ {
		h := e.Hands[k.read.hands]
		k.hands[h.FileID] = append(k.hands[h.FileID], h)
	}
	for ; k.read.acks < len(e.Acks); k.read.acks++ {
		if a := &e.Acks[k.read.acks]; a.Door == Webhook && a.Genuine && a.Kind == "file.deleted" {
			k.announced[a.FileID] = append(k.announced[a.FileID], a.SentAt)
		}
	}
	for ; k.read.changes < len(e.History); k.read.changes++ {
		k.change(e.History[k.read.changes])
	}
}

var detailsPath = regexp.MustCompile(`^/v1/files/([^/]+)/details$`)

func (k *known) request(r *Request) {
	if r.Method != http.MethodGet || r.Cut {
		return
	}
	if r.Path == "/v1/files" {
		if q, err := url.ParseQuery(r.Query); err == nil && q.Get("limit") == "1" && r.Status == 200 && r.Body != "text" && r.Body != "object" {
			k.seenAny = append(k.seenAny, r)
		}
		return
	}
	m := detailsPath.FindStringSubmatch(r.Path)
	if m == nil || r.Body == "text" || r.Body == "array" {
		return // a page of HTML with 404 says nothing of the file
	}
	id, err := url.PathUnescape(m[1])
	switch {
	case err != nil:
	case r.Status == 404 || r.Status == 400:
		k.absent[id] = append(k.absent[id], r)
	case r.Status == 200 && !r.Blank:
		k.present[id] = append(k.present[id], r)
		k.seenAny = append(k.seenAny, r)
	}
}

func (k *known) change(c Change) {
	s := k.files[c.FileID]
	if s == nil {
		s = &story{}
		k.files[c.FileID] = s
	}
	var p *projection
	if c.File != nil {
		var err error
		if p, err = project(c.File, k.settings, k.opener); err != nil {
			k.unread = append(k.unread, c.FileID+": "+err.Error())
		}
	}
	s.changes, s.versions = append(s.changes, c), append(s.versions, p)
}

// touched reports whether somebody wrote to the file's row by hand between two moments.
// Their edges count: nobody knows what came first.
func (k *known) touched(id string, from, to time.Time) bool {
	in := func(h Hand) bool { return !h.At.Before(from) && !h.At.After(to) }
	return slices.ContainsFunc(k.hands[id], in) || slices.ContainsFunc(k.hands[""], in)
}

// held reports whether ImageKit held the file all the time between two moments. now is
// its truth at the end.
func (l *looking) held(id string, from, to time.Time) bool {
	s := l.files[id]
	if s == nil {
		_, is := l.Truth[id] // never changed: as it is, it always was
		return is
	}
	there := s.changes[0].Kind != Uploaded
	for _, c := range s.changes {
		if c.At.After(to) {
			break
		}
		if c.At.After(from) && !there {
			return false
		}
		there = c.Kind != Deleted
		if c.At.After(from) && !there {
			return false
		}
	}
	return there
}

// ever reports whether ImageKit holds or held the file.
func (l *looking) ever(id string) bool { return l.Truth[id] != nil || l.files[id] != nil }

// projected is the row that a file of ImageKit's must have.
func (l *looking) projected(id string, raw json.RawMessage) *projection {
	p, err := project(raw, l.settings, l.opener)
	if err != nil {
		l.wrong(id, "%v", err)
		return nil
	}
	return p
}

// believable: trueup's own alphabet of file ids; all others are refused or ignored.
var believable = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
