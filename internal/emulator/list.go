package emulator

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listing is GET /v1/files, understood.
type listing struct {
	kinds    map[string]bool // file, file-version, folder
	folder   string          // empty: anywhere
	fileType string          // all, image, non-image
	name     string          // legacy parameter
	tags     []string        // legacy parameter, any of
	by       string          // CREATED, UPDATED, NAME …
	down     bool
	skip     int
	limit    int
	where    expression // nil: everything
	bounds   bounds
}

var sortKeys = []string{"NAME", "CREATED", "UPDATED", "HEIGHT", "WIDTH", "SIZE", "RELEVANCE"}

// list is GET /v1/files: list and search are one call.
func (e *Emulator) list(r *http.Request) answer {
	q, say := e.readListing(r)
	if say != "" {
		return refuse(http.StatusBadRequest, say)
	}
	e.mu.RLock()
	items := e.lib.find(q, e.lagged())
	e.mu.RUnlock()
	out := make([]any, len(items))
	for i, it := range items {
		out[i] = e.show(it)
	}
	return ok(out)
}

// lagged is what listings show differently from what is; mu is held.
func (e *Emulator) lagged() map[string]*record {
	lag := time.Duration(e.settings.Load().ListLag)
	if lag == 0 {
		return nil
	}
	return e.lib.asOf(e.Now().Add(-lag))
}

func (e *Emulator) readListing(r *http.Request) (q *listing, say string) {
	s := e.settings.Load()
	if n := len(r.URL.RequestURI()); s.URLMax > 0 && n > s.URLMax {
		return nil, fmt.Sprintf("The request URL is too long: %d characters, the maximum is %d.", n, s.URLMax)
	}
	p := r.URL.Query()
	q = &listing{fileType: cmp.Or(p.Get("fileType"), "all"), kinds: map[string]bool{}}
	if !slices.Contains([]string{"all", "image", "non-image"}, q.fileType) {
		return nil, "Your request contains invalid value for fileType parameter."
	}
	if say := q.readPage(p.Get("skip"), p.Get("limit"), s.SkipCap); say != "" {
		return nil, say
	}
	if say := q.readSort(cmp.Or(p.Get("sort"), "ASC_CREATED")); say != "" {
		return nil, say
	}
	if p.Has("path") {
		q.folder = "/" + strings.Trim(p.Get("path"), "/")
	}
	if text := p.Get("searchQuery"); strings.TrimSpace(text) != "" {
		return q, e.readSearch(q, text, s)
	}
	q.name = p.Get("name")
	if tags := p.Get("tags"); tags != "" {
		q.tags = strings.Split(tags, ",")
	}
	return q, q.readType(cmp.Or(p.Get("type"), "file"))
}

func (q *listing) readPage(skip, limit string, most int) (say string) {
	var err error
	if q.skip, err = strconv.Atoi(cmp.Or(skip, "0")); err != nil || q.skip < 0 {
		return "The value of skip parameter should be greater than or equal to 0. Value sent is " + skip + "."
	}
	q.limit, err = strconv.Atoi(cmp.Or(limit, "1000"))
	switch {
	case err != nil || q.limit < 1:
		return "Minimum value of limit parameter is 1. Value sent is " + limit + "."
	case q.limit > 1000:
		return "Maximum value of limit parameter is 1000. Value sent is " + limit + "."
	case most > 0 && q.skip > most:
		return fmt.Sprintf("Maximum value of skip parameter is %d. Value sent is %s.", most, skip)
	}
	return ""
}

func (q *listing) readSort(text string) (say string) {
	direction, key, _ := strings.Cut(text, "_")
	if direction != "ASC" && direction != "DESC" || !slices.Contains(sortKeys, key) {
		return sayBadSort
	}
	q.by, q.down = key, direction == "DESC"
	return ""
}

func (q *listing) readType(text string) (say string) {
	switch text {
	case "file", "file-version", "folder":
		q.kinds[text] = true
	case "all":
		q.kinds["file"], q.kinds["folder"] = true, true
	default:
		return sayBadType
	}
	return ""
}

func (e *Emulator) readSearch(q *listing, text string, s *Settings) (say string) {
	typed := false
	now := e.Now()
	x, err := parseQuery(text, func(c *clause) error {
		typed = typed || c.field == "type"
		return e.settleClause(c, s, now)
	})
	if err != nil {
		return "Your request contains invalid value for searchQuery parameter: " + err.Error() + "."
	}
	q.where = x
	q.bounds.narrow(x)
	switch {
	case typed:
		q.kinds = map[string]bool{"file": true, "file-version": true, "folder": true}
	case s.SearchDefaultType == "file":
		q.kinds["file"] = true
	default:
		q.kinds["file"], q.kinds["folder"] = true, true
	}
	return ""
}

// searchKinds are the fields that a searchQuery may name, beside metadata.
var searchKinds = map[string]kind{
	"id": kindChoice, "name": kindText, "tags": kindWords, "type": kindChoice, "createdAt": kindTime, "updatedAt": kindTime,
	"width": kindNumber, "height": kindNumber, "size": kindSize, "format": kindChoice, "private": kindFlag,
	"published": kindFlag, "transparency": kindFlag, "createdBy": kindChoice, "path": kindPath,
	"embeddedMetadata.Keywords": kindWords, "embeddedMetadata.DateTimeOriginal": kindTime, "embeddedMetadata.LocationTaken": kindChoice,
}

func (e *Emulator) settleClause(c *clause, s *Settings, now time.Time) error {
	k, known := searchKinds[c.field]
	if name, custom := strings.CutPrefix(c.field, "customMetadata."); custom {
		k, known = e.metadataKind(name, s)
	}
	switch {
	case !known, c.field == "id" && !s.IDSearch:
		return fmt.Errorf("there is no field %s", c.field)
	case c.field == "id" && s.IDSearchMax > 0 && len(c.words) > s.IDSearchMax:
		return fmt.Errorf("id takes at most %d values", s.IDSearchMax)
	}
	if c.field == "type" {
		for _, w := range c.words {
			if !slices.Contains([]string{"file", "file-version", "folder"}, w.text) {
				return fmt.Errorf("there is no type %s", w)
			}
		}
	}
	return c.settle(k, now)
}

func (e *Emulator) metadataKind(name string, s *Settings) (kind, bool) {
	e.mu.RLock()
	f := e.lib.field(name)
	e.mu.RUnlock()
	if f == nil {
		return kindText, s.AnyCustomMetadata
	}
	switch f.Schema.Type {
	case "Number":
		return kindNumber, true
	case "Date":
		return kindTime, true
	case "Boolean":
		return kindFlag, true
	case "MultiSelect":
		return kindWords, true
	}
	return kindText, true
}

// bounds are what every hit of a query must satisfy, so that most of a large
// library need not be looked at. They never decide: where they are wider than the
// query, the query still does.
type bounds struct {
	ids              []string // nil: any
	byID             bool
	kind             string // empty: any
	created, updated span
}

// span is from..to, both included; the zero value is everything.
type span struct {
	from, to int64
	set      bool
}

func (s *span) narrow(op string, at int64) {
	if !s.set {
		*s = span{from: -1 << 62, to: 1 << 62, set: true}
	}
	switch op {
	case "=":
		s.from, s.to = max(s.from, at), min(s.to, at)
	case ">", ">=":
		s.from = max(s.from, at)
	case "<", "<=":
		s.to = min(s.to, at)
	}
}

func (b *bounds) narrow(x expression) {
	switch x := x.(type) {
	case *group:
		if x.op == "AND" {
			for _, p := range x.parts {
				b.narrow(p)
			}
		}
	case *clause:
		b.narrowBy(x)
	}
}

func (b *bounds) narrowBy(c *clause) {
	switch {
	case c.field == "id" && (c.op == "=" || c.op == "IN") && !b.byID:
		b.byID = true
		for _, o := range c.operands {
			if !slices.Contains(b.ids, o.text) {
				b.ids = append(b.ids, o.text)
			}
		}
	case c.field == "type" && c.op == "=":
		b.kind = c.operands[0].text
	case c.field == "createdAt" && len(c.operands) == 1:
		b.created.narrow(c.op, int64(c.operands[0].number))
	case c.field == "updatedAt" && len(c.operands) == 1:
		b.updated.narrow(c.op, int64(c.operands[0].number))
	}
}
