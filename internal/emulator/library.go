package emulator

import (
	"cmp"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// record is one file. It never changes once it is in the library: a mutation puts
// another one in its place, so a reader may keep what it got.
type record struct {
	ID      string `json:"id"`
	Folder  string `json:"folder"` // "/" or "/a/b"
	Name    string `json:"name"`
	Created int64  `json:"created"` // of the first upload, epoch ms
	version
	Earlier []version `json:"earlier,omitempty"` // oldest first
}

// version is the state of a file that an overwrite replaces as a whole.
type version struct {
	ID       string         `json:"vid"`
	Number   int            `json:"n"`
	Uploaded int64          `json:"uploaded"` // epoch ms
	Updated  int64          `json:"updated"`  // epoch ms
	Blob     string         `json:"blob"`
	Size     int64          `json:"size"`
	MIME     string         `json:"mime"`
	Width    int            `json:"w,omitempty"` // 0 when there is none
	Height   int            `json:"h,omitempty"`
	Alpha    bool           `json:"alpha,omitempty"`
	Tags     []string       `json:"tags,omitempty"`
	Custom   map[string]any `json:"custom,omitempty"`
	Coords   string         `json:"coords,omitempty"`
	Text     string         `json:"text,omitempty"` // description
	Private  bool           `json:"private,omitempty"`
	Draft    bool           `json:"draft,omitempty"` // not published
}

func (r *record) path() string { return join(r.Folder, r.Name) }

// highest is the number of the newest version ever made.
func (r *record) highest() int {
	n := r.Number
	for _, v := range r.Earlier {
		n = max(n, v.Number)
	}
	return n
}

func join(folder, name string) string { return strings.TrimRight(folder, "/") + "/" + name }

// folder is one folder other than the root.
type folder struct {
	ID      string `json:"id"`
	Path    string `json:"path"`
	Created int64  `json:"created"`
	Updated int64  `json:"updated"`
}

func (f *folder) name() string { return f.Path[strings.LastIndexByte(f.Path, '/')+1:] }

func (f *folder) parent() string {
	return cmp.Or(f.Path[:strings.LastIndexByte(f.Path, '/')], "/")
}

// usedToken is a one-time upload token that was presented; Until is when it would
// have expired anyway.
type usedToken struct {
	Key   string `json:"key"`
	Until int64  `json:"until"` // epoch s
}

// library is the whole account in memory. It has no lock of its own: Emulator.mu
// guards it. Generated files are not in files until somebody changes them.
type library struct {
	files       map[string]*record
	paths       map[string]string // path → id, of files
	created     order
	updated     order
	folders     map[string]*folder // by path
	generations []*generation
	tokens      map[string]int64
	fields      []*metadataField
	hooks       map[string]*hook
	faults      []*Fault
	lastFault   int
	patch       map[string]any
	history     map[string][]past
	forgotten   time.Time // when history was last pruned
}

// past is what a file was until a moment, for a listing that lags.
type past struct {
	until  time.Time
	before *record // nil: there was none
}

func newLibrary() *library {
	return &library{
		files: map[string]*record{}, paths: map[string]string{}, folders: map[string]*folder{},
		created: order{key: func(r *record) int64 { return r.Created }},
		updated: order{key: func(r *record) int64 { return r.Updated }},
		tokens:  map[string]int64{}, hooks: map[string]*hook{}, history: map[string][]past{},
	}
}

// file finds a file by id.
func (l *library) file(id string) *record {
	if r := l.files[id]; r != nil {
		return r
	}
	if g, i := l.generated(id); g != nil && !g.hidden[i] {
		return g.record(i)
	}
	return nil
}

// at finds a file by path.
func (l *library) at(path string) *record {
	if id, ok := l.paths[path]; ok {
		return l.files[id]
	}
	for _, g := range l.generations {
		if i, ok := g.index(path); ok && !g.hidden[i] {
			return g.record(i)
		}
	}
	return nil
}

// apply makes one change. It is the only place that does, at start and at run time.
func (l *library) apply(c *change) error {
	switch {
	case c.Reset:
		faults := l.lastFault
		*l = *newLibrary()
		l.lastFault = faults
	case c.Put != nil:
		l.remove(c.Put.ID)
		l.files[c.Put.ID] = c.Put
		l.paths[c.Put.path()] = c.Put.ID
		l.created.add(c.Put)
		l.updated.add(c.Put)
	case c.Drop != "":
		l.remove(c.Drop)
	case c.Folder != nil:
		l.folders[c.Folder.Path] = c.Folder
	case c.DropFolder != "":
		delete(l.folders, c.DropFolder)
	case c.Generate != nil:
		return l.generate(c.Generate)
	case c.Hide != nil:
		return l.hide(c.Hide)
	default:
		return l.applyRest(c)
	}
	return nil
}

func (l *library) applyRest(c *change) error {
	switch {
	case c.Token != nil:
		l.tokens[c.Token.Key] = c.Token.Until
	case c.Field != nil:
		l.dropField(c.Field.ID)
		l.fields = append(l.fields, c.Field)
	case c.DropField != "":
		l.dropField(c.DropField)
	case c.Settings != nil:
		l.patch = c.Settings
	case c.Fault != nil:
		l.putFault(c.Fault)
	case c.DropFault != 0:
		l.faults = slices.DeleteFunc(l.faults, func(f *Fault) bool { return c.DropFault < 0 || f.ID == c.DropFault })
	case c.Hook != nil:
		l.hooks[c.Hook.ID] = c.Hook
	case c.DropHook != "":
		delete(l.hooks, c.DropHook)
	default:
		return errors.New("a change that this version does not know")
	}
	return nil
}

func (l *library) remove(id string) {
	if r := l.files[id]; r != nil {
		delete(l.files, id)
		delete(l.paths, r.path())
		l.created.remove(r)
		l.updated.remove(r)
	}
	if g, i := l.generated(id); g != nil {
		g.hidden[i] = true
	}
}

func (l *library) dropField(id string) {
	l.fields = slices.DeleteFunc(l.fields, func(f *metadataField) bool { return f.ID == id })
}

// remember keeps what a file was before a change, as long as listings lag.
func (l *library) remember(c *change, now time.Time, lag time.Duration) {
	id := c.Drop
	if c.Put != nil {
		id = c.Put.ID
	}
	if lag <= 0 || id == "" {
		return
	}
	l.history[id] = append(l.history[id], past{until: now, before: l.file(id)})
	if now.Sub(l.forgotten) > lag {
		l.forget(now.Add(-lag))
		l.forgotten = now
	}
}

func (l *library) forget(before time.Time) {
	for id, pasts := range l.history {
		pasts = slices.DeleteFunc(pasts, func(p past) bool { return p.until.Before(before) })
		if len(pasts) == 0 {
			delete(l.history, id)
		} else {
			l.history[id] = pasts
		}
	}
}

// asOf says which files a listing at the moment t shows differently from now: each
// id maps to what it was, nil for not there yet.
func (l *library) asOf(t time.Time) map[string]*record {
	out := map[string]*record{}
	for id, pasts := range l.history {
		for _, p := range pasts {
			if p.until.After(t) {
				out[id] = p.before
				break
			}
		}
	}
	return out
}

// blobs are the names of all bytes that some version holds.
func (l *library) blobs() map[string]bool {
	used := map[string]bool{}
	for _, r := range l.files {
		used[r.Blob] = true
		for _, v := range r.Earlier {
			used[v.Blob] = true
		}
	}
	return used
}

// snapshot yields changes that make this library out of an empty one.
func (l *library) snapshot() iter.Seq[change] {
	return func(yield func(change) bool) {
		for _, c := range l.small() {
			if !yield(c) {
				return
			}
		}
		for _, g := range l.generations {
			if !yield(change{Generate: g}) || !yield(change{Hide: g.hiding()}) {
				return
			}
		}
		for _, r := range l.created.items {
			if !yield(change{Put: r}) {
				return
			}
		}
	}
}

// forgetTokens forgets what would be refused as expired anyway.
func (l *library) forgetTokens(now int64) {
	maps.DeleteFunc(l.tokens, func(_ string, until int64) bool { return until < now })
}

// small are the changes for all but files.
func (l *library) small() (out []change) {
	if l.patch != nil {
		out = append(out, change{Settings: l.patch})
	}
	for _, f := range l.folders {
		out = append(out, change{Folder: f})
	}
	for k, until := range l.tokens {
		out = append(out, change{Token: &usedToken{Key: k, Until: until}})
	}
	for _, f := range l.fields {
		out = append(out, change{Field: f})
	}
	for _, f := range l.faults {
		out = append(out, change{Fault: f})
	}
	for _, h := range l.hooks {
		out = append(out, change{Hook: h})
	}
	return out
}

// order keeps records sorted by a time and then by id.
type order struct {
	key   func(*record) int64
	items []*record
}

func (o *order) compare(a, b *record) int {
	return cmp.Or(cmp.Compare(o.key(a), o.key(b)), cmp.Compare(a.ID, b.ID))
}

func (o *order) add(r *record) {
	if n := len(o.items); n == 0 || o.compare(o.items[n-1], r) < 0 {
		o.items = append(o.items, r)
		return
	}
	i, _ := slices.BinarySearchFunc(o.items, r, o.compare)
	o.items = slices.Insert(o.items, i, r)
}

func (o *order) remove(r *record) {
	if i, ok := slices.BinarySearchFunc(o.items, r, o.compare); ok {
		o.items = slices.Delete(o.items, i, i+1)
	}
}

// from is the first place whose time is t or later.
func (o *order) from(t int64) int {
	i, _ := slices.BinarySearchFunc(o.items, t, func(r *record, t int64) int { return cmp.Compare(o.key(r), t) })
	return i
}
