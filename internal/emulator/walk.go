package emulator

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// cursor is a run of items in ascending order of one time.
type cursor struct {
	lo, hi int // what is left of it
	key    func(i int) int64
	item   func(i int) item
}

// find answers a listing. lagged maps ids to what they were, where a lagging
// listing differs from what is.
func (l *library) find(q *listing, lagged map[string]*record) []item {
	if q.bounds.byID {
		return q.page(q.sorted(l.named(q, lagged)))
	}
	// Walk along the time that is bounded, else along the one that is asked for.
	// Where the walk goes in the order asked for, it stops when the page is full.
	byUpdate := q.bounds.updated.set || q.by == "UPDATED" && !q.bounds.created.set
	cursors := l.cursors(q, byUpdate, lagged)
	if q.by == "CREATED" && !byUpdate || q.by == "UPDATED" && byUpdate {
		return q.stream(cursors)
	}
	return q.page(q.sorted(q.gather(cursors)))
}

// stream takes one page of a walk in the right order.
func (q *listing) stream(cursors []*cursor) (out []item) {
	skip := q.skip
	walk(cursors, q.down, func(it item) bool {
		switch {
		case !q.admits(&it):
		case skip > 0:
			skip--
		default:
			out = append(out, it)
		}
		return len(out) < q.limit
	})
	return out
}

// gather takes all that may be on the page, sorting now and then so that no more
// than a few pages are ever held.
func (q *listing) gather(cursors []*cursor) (out []item) {
	need := q.skip + q.limit
	walk(cursors, false, func(it item) bool {
		if q.admits(&it) {
			out = append(out, it)
		}
		if len(out) > 2*need+10_000 {
			out = q.sorted(out)[:need]
		}
		return true
	})
	return out
}

// named looks up the ids that a query asks for.
func (l *library) named(q *listing, lagged map[string]*record) (out []item) {
	add := func(it item) {
		if q.admits(&it) {
			out = append(out, it)
		}
	}
	for _, id := range q.bounds.ids {
		r, differs := lagged[id]
		if !differs {
			r = l.file(id)
		}
		if r == nil {
			continue
		}
		add(fileItem(r))
		for i := range r.Earlier {
			add(item{kind: "file-version", file: r, v: &r.Earlier[i]})
		}
	}
	for _, f := range l.folders {
		if slices.Contains(q.bounds.ids, f.ID) {
			add(item{kind: "folder", folder: f})
		}
	}
	return out
}

func (q *listing) page(items []item) []item {
	items = items[min(q.skip, len(items)):]
	return items[:min(q.limit, len(items))]
}

func (q *listing) sorted(items []item) []item {
	slices.SortStableFunc(items, func(a, b item) int {
		d := cmp.Or(q.compare(&a, &b), cmp.Compare(a.id(), b.id()))
		if q.down {
			return -d
		}
		return d
	})
	return items
}

func (q *listing) compare(a, b *item) int {
	switch q.by {
	case "NAME":
		return strings.Compare(a.name(), b.name())
	case "UPDATED":
		return cmp.Compare(a.updated(), b.updated())
	case "HEIGHT", "WIDTH", "SIZE":
		field := strings.ToLower(q.by)
		return cmp.Compare(a.value(field).number, b.value(field).number)
	}
	return cmp.Compare(a.created(), b.created()) // RELEVANCE too: nothing here ranks
}

// cursors are the runs that together hold every candidate, bounded in time.
func (l *library) cursors(q *listing, byUpdate bool, lagged map[string]*record) (out []*cursor) {
	files, within := &l.created, q.bounds.created
	if byUpdate {
		files, within = &l.updated, q.bounds.updated
	}
	wants := func(kind string) bool { return q.kinds[kind] && (q.bounds.kind == "" || q.bounds.kind == kind) }
	var rest []item
	if wants("file") {
		out = append(out, files.cursor(within))
		for _, g := range l.generations {
			out = append(out, g.cursor(within))
		}
		for _, c := range out {
			c.leaveOut(lagged)
		}
		for r := range maps.Values(lagged) {
			if r != nil {
				rest = append(rest, fileItem(r))
			}
		}
	}
	if wants("file-version") {
		rest = append(rest, l.versions()...)
	}
	if wants("folder") {
		for _, f := range l.folders {
			rest = append(rest, item{kind: "folder", folder: f})
		}
	}
	return append(out, listed(rest, byUpdate))
}

func (l *library) versions() (out []item) {
	for _, r := range l.created.items {
		for i := range r.Earlier {
			out = append(out, item{kind: "file-version", file: r, v: &r.Earlier[i]})
		}
	}
	return out
}

func (o *order) cursor(within span) *cursor {
	c := &cursor{
		hi: len(o.items), key: func(i int) int64 { return o.key(o.items[i]) },
		item: func(i int) item { return fileItem(o.items[i]) },
	}
	if within.set {
		c.lo, c.hi = o.from(within.from), o.from(within.to+1)
	}
	return c
}

// cursor runs over the files that are still as generated: createdAt and updatedAt
// are the same there.
func (g *generation) cursor(within span) *cursor {
	c := &cursor{hi: g.Count, key: g.createdAt, item: func(i int) item {
		if g.hidden[i] {
			return item{}
		}
		return fileItem(g.record(i))
	}}
	if within.set {
		c.lo, c.hi = g.from(within.from), g.from(within.to+1)
	}
	return c
}

// listed is a cursor over items that lie in no order yet.
func listed(items []item, byUpdate bool) *cursor {
	key := func(it *item) int64 {
		if byUpdate {
			return it.updated()
		}
		return it.created()
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(key(&a), key(&b)), cmp.Compare(a.id(), b.id()))
	})
	return &cursor{hi: len(items), key: func(i int) int64 { return key(&items[i]) }, item: func(i int) item { return items[i] }}
}

// leaveOut hides files that a lagging listing shows as they were, or not at all.
func (c *cursor) leaveOut(lagged map[string]*record) {
	if len(lagged) == 0 {
		return
	}
	now := c.item
	c.item = func(i int) item {
		it := now(i)
		if it.file != nil {
			if _, differs := lagged[it.file.ID]; differs {
				return item{}
			}
		}
		return it
	}
}

// walk merges the cursors in ascending or descending order until yield says no.
// Items of the same time come in the same order each time.
func walk(cursors []*cursor, down bool, yield func(item) bool) {
	for {
		var best *cursor
		var at int64
		for _, c := range cursors {
			if c.lo >= c.hi {
				continue
			}
			if k := c.edge(down); best == nil || !down && k < at || down && k >= at {
				best, at = c, k
			}
		}
		if best == nil {
			return
		}
		if it := best.pop(down); it.kind != "" && !yield(it) {
			return
		}
	}
}

func (c *cursor) edge(down bool) int64 {
	if down {
		return c.key(c.hi - 1)
	}
	return c.key(c.lo)
}

func (c *cursor) pop(down bool) item {
	if down {
		c.hi--
		return c.item(c.hi)
	}
	c.lo++
	return c.item(c.lo - 1)
}
