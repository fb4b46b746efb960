package operator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Letters is what stands behind the verbs on dead letters. Its errors wrap
// event.ErrUnknown for an id that nobody knows.
type Letters interface {
	// DeadLetters are those that the filter matches with ids after the given one, by
	// id, at most limit of them and without bodies.
	DeadLetters(ctx context.Context, f event.Filter, after string, limit int) ([]event.DeadLetter, error)
	// DeadLetter is one, whole.
	DeadLetter(ctx context.Context, id string) (event.DeadLetter, error)
	CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error)
	// ExportDead hands over whole letters by id; those that come later are left out.
	ExportDead(ctx context.Context, f event.Filter, each func(event.DeadLetter) error) error
	// Import stores all of the letters or none, with the audit line. It keeps their
	// ids, marks them with the import's, those that are here already too, and changes
	// nothing else of these. It may ask for the letters more than once.
	Import(ctx context.Context, importID string, letters iter.Seq2[event.DeadLetter, error], act Act) (inserted, known int, err error)
	// Preview looks the files up now and says what settling a replay of each letter
	// would do, writing nothing. The answers are in the order of the letters.
	Preview(ctx context.Context, letters []event.DeadLetter) ([]Previewed, error)
	// Assign gives a file to a user, whoever owned it.
	Assign(ctx context.Context, fileID, user string, act Act) error
}

// Page is a part of a list; Next is the `after` of the page that follows, empty at the
// last.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Previewed is what a replay of one dead letter would do now.
type Previewed struct {
	ID      string `json:"id"`
	FileID  string `json:"fileId"`
	Verdict string `json:"verdict"`
	Status  int    `json:"status,omitempty"` // ImageKit's
	Outcome string `json:"outcome,omitempty"`
	End     string `json:"end"`
	Reason  string `json:"reason,omitempty"`
	// Says is the same for people.
	Says string `json:"says"`
}

// Assigned is who owns the file now.
type Assigned struct {
	FileID string `json:"fileId"`
	User   string `json:"user"`
}

const (
	pageDefault    = 100
	pageMost       = 1000
	previewDefault = 25
	previewMost    = 100 // each is one look-up at the priority of replays
	idsMost        = 1000
	// stateAny in a query asks for letters of every state; unset means dead ones.
	stateAny = "any"
)

func (h *Handler) deadList(r *http.Request) (Page[event.DeadLetter], error) {
	f, err := filterOf(r.URL.Query())
	if err != nil {
		return Page[event.DeadLetter]{}, err
	}
	after, limit, err := pageOf(r, pageDefault, pageMost)
	if err != nil {
		return Page[event.DeadLetter]{}, err
	}
	// One more than asked for tells whether a page follows.
	found, err := h.Service.DeadLetters(r.Context(), f, after, limit+1)
	return paged(found, limit, err, func(d event.DeadLetter) string { return d.ID })
}

// paged cuts the one that was asked for beyond the limit.
func paged[T any](found []T, limit int, err error, id func(T) string) (Page[T], error) {
	if err != nil {
		return Page[T]{}, err
	}
	p := Page[T]{Items: listed(found)}
	if len(found) > limit {
		p.Items = found[:limit]
		p.Next = id(p.Items[limit-1])
	}
	return p, nil
}

func (h *Handler) deadShow(r *http.Request) (event.DeadLetter, error) {
	id := chi.URLParam(r, "id")
	d, err := h.Service.DeadLetter(r.Context(), id)
	return d, named("dead letter", id, err)
}

func (h *Handler) deadCount(r *http.Request) (event.DeadCount, error) {
	f, err := filterOf(r.URL.Query())
	if err != nil {
		return event.DeadCount{}, err
	}
	n, err := h.Service.CountDead(r.Context(), f)
	if n.Classes == nil {
		n.Classes = map[event.Class]int64{}
	}
	return n, err
}

// named says which id it is that nobody knows.
func named(noun, id string, err error) error {
	if errors.Is(err, event.ErrUnknown) {
		return &Problem{http.StatusNotFound, "unknown_id", fmt.Sprintf("there is no %s %q", noun, id)}
	}
	return err
}

// previewBody is what to look at; a page of it, since each letter costs a look-up.
type previewBody struct {
	Filter event.Filter `json:"filter"`
	All    bool         `json:"all,omitempty"`
	After  string       `json:"after,omitempty"`
	Limit  int          `json:"limit,omitempty"`
}

func (h *Handler) deadPreview(r *http.Request, body []byte) (Page[Previewed], error) {
	var in previewBody
	if err := decode(body, &in); err != nil {
		return Page[Previewed]{}, err
	}
	f, err := bulk(in.Filter, in.All)
	if err != nil {
		return Page[Previewed]{}, err
	}
	if len(f.IDs) > 0 {
		// Counting is what notices an id that is none.
		if _, err := h.Service.CountDead(r.Context(), f); err != nil {
			return Page[Previewed]{}, err
		}
	} else if f.State == "" {
		f.State = event.LetterDead
	}
	limit := in.Limit
	if limit <= 0 {
		limit = previewDefault
	}
	limit = min(limit, previewMost)
	found, err := h.Service.DeadLetters(r.Context(), f, in.After, limit+1)
	page, err := paged(found, limit, err, func(d event.DeadLetter) string { return d.ID })
	if err != nil || len(page.Items) == 0 {
		return Page[Previewed]{Items: []Previewed{}}, err
	}
	out, err := h.Service.Preview(r.Context(), page.Items)
	for i := range out {
		out[i].Says = tellPreview(out[i])
	}
	return Page[Previewed]{Items: listed(out), Next: page.Next}, err
}

// bulk checks what a bulk verb may work on: everything only where that was said.
func bulk(f event.Filter, all bool) (event.Filter, error) {
	if f.Empty() && !all {
		return f, errNoFilter
	}
	return f, check(f)
}

// check refuses a filter with a word that no letter can have: it would match nothing,
// and whoever mistyped it would not know.
func check(f event.Filter) error {
	switch {
	case f.Class != "" && !slices.Contains([]event.Class{event.ClassCaller, event.ClassImageKit, event.ClassDatabase, event.ClassTrueup}, f.Class):
		return filterProblem("class", "caller, imagekit, database or trueup")
	case f.Source != "" && !slices.Contains([]event.Source{event.Client, event.Webhook, event.Replay, event.Reconcile}, f.Source):
		return filterProblem("source", "client, webhook, replay or reconcile")
	case f.State != "" && !slices.Contains([]event.LetterState{event.LetterDead, event.LetterReplaying, event.LetterResolved, event.LetterDiscarded}, f.State):
		return filterProblem("state", "dead, replaying, resolved or discarded")
	case f.FileID != "" && !file.ValidID(f.FileID):
		return errBadID
	case len(f.IDs) > idsMost:
		return filterProblem("ids", fmt.Sprintf("a list of at most %d; use a filter for more", idsMost))
	}
	return nil
}

func filterProblem(name, is string) error {
	return &Problem{http.StatusBadRequest, "invalid_filter", "filter " + name + " is " + is}
}

// filterOf reads a filter from a query; the state is dead unless it says otherwise.
func filterOf(q url.Values) (event.Filter, error) {
	f := event.Filter{IDs: q["id"], Reason: q.Get("reason"), Class: event.Class(q.Get("class")), Source: event.Source(q.Get("source")),
		FileID: q.Get("file"), State: event.LetterState(q.Get("state")), Import: q.Get("import")}
	switch f.State {
	case "":
		f.State = event.LetterDead
	case stateAny:
		f.State = ""
	}
	for name, into := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return f, filterProblem(name, "a time such as 2026-01-31T12:00:00Z")
		}
		*into = at
	}
	return f, check(f)
}

// queryOf is the other way round.
func queryOf(f event.Filter) url.Values {
	q := url.Values{}
	put := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	for _, id := range f.IDs {
		q.Add("id", id)
	}
	put("reason", f.Reason)
	put("class", string(f.Class))
	put("source", string(f.Source))
	put("file", f.FileID)
	put("import", f.Import)
	put("state", string(f.State))
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// pageOf reads ?limit=&after=.
func pageOf(r *http.Request, usual, most int) (after string, limit int, err error) {
	after, limit = r.URL.Query().Get("after"), usual
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return "", 0, &Problem{http.StatusBadRequest, "invalid_limit", fmt.Sprintf("limit is a number from 1 to %d", most)}
		}
	}
	return after, min(limit, most), nil
}

// assignBody is who the file shall belong to.
type assignBody struct {
	User string `json:"user"`
	Note string `json:"note"`
}

func (h *Handler) assign(r *http.Request, key string, body []byte) (any, error) {
	id := chi.URLParam(r, "id")
	var in assignBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	switch {
	case !file.ValidID(id):
		return nil, errBadID
	case in.User == "":
		return nil, errNoUser
	case in.Note == "":
		return nil, errNoNote
	}
	if err := h.Service.Assign(r.Context(), id, in.User, Act{Who: callerOf(r), Note: in.Note, Key: key}); err != nil {
		return nil, named("file", id, err)
	}
	h.acted(r, "assign", in.Note, "file", id, "user", in.User)
	return Assigned{FileID: id, User: in.User}, nil
}

// acted leaves a line in the log beside the one in the audit.
func (h *Handler) acted(r *http.Request, verb, note string, more ...any) {
	h.Logger.InfoContext(r.Context(), "operator act", append([]any{"verb", verb, "who", callerOf(r), "note", note, "request_id", idOf(r)}, more...)...)
}
