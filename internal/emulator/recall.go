package emulator

import (
	"bufio"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"
)

// recallLength bounds each of the logs; the oldest lines go first.
const recallLength = 20_000

// recall is one log since start or reset. Its lines are numbered from 1, so that a
// reader who asks for what came after a number sees whether any were lost.
type recall[T any] struct {
	mu    sync.Mutex // guards what follows
	lines []numbered[T]
	next  int // where the oldest line stands once it is full
	count int64
}

type numbered[T any] struct {
	n    int64
	line T
}

func (r *recall[T]) add(line T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	l := numbered[T]{r.count, line}
	if len(r.lines) < recallLength {
		r.lines = append(r.lines, l)
		return
	}
	r.lines[r.next] = l
	r.next = (r.next + 1) % recallLength
}

// after are the lines kept after number n, oldest first, and how many there ever were.
func (r *recall[T]) after(n int64) ([]numbered[T], int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := len(r.lines)
	skip := max(n-(r.count-int64(kept)), 0)
	out := make([]numbered[T], 0, max(int64(kept)-skip, 0))
	for i := skip; i < int64(kept); i++ {
		out = append(out, r.lines[(int64(r.next)+i)%int64(kept)])
	}
	return out, r.count
}

func (r *recall[T]) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.next, r.count = nil, 0, 0
}

// recalled answers with the lines after ?after=N.
func recalled[T, V any](r *http.Request, log *recall[T], show func(n int64, line *T) V) answer {
	n, err := strconv.ParseInt("0"+r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		return refuse(http.StatusBadRequest, "after is the number of a line.")
	}
	lines, count := log.after(n)
	items := make([]V, len(lines))
	for i := range lines {
		items[i] = show(lines[i].n, &lines[i].line)
	}
	return ok(map[string]any{"items": items, "count": count})
}

// delivered is one attempt at a webhook, of GET /_emulator/deliveries.
type delivered struct {
	N      int64           `json:"n"`
	At     time.Time       `json:"at"`
	Took   Duration        `json:"took"`
	ID     string          `json:"id"`
	FileID string          `json:"fileId"`
	Try    int             `json:"try"`
	Status int             `json:"status,omitempty"` // 0: no answer came
	Error  string          `json:"error,omitempty"`
	Body   json.RawMessage `json:"body"`
}

func (e *Emulator) showDeliveries(r *http.Request) answer {
	return recalled(r, &e.stats.deliveries, func(n int64, d *delivered) delivered {
		out := *d
		out.N = n
		return out
	})
}

// happened is one change of a file.
type happened struct {
	at   time.Time
	id   string
	kind string
	file *record // nil when it was deleted
}

// happening says what a change does to a file, before it is applied; false for one
// that does nothing to any.
func (l *library) happening(c *change, now time.Time) (happened, bool) {
	switch {
	case c.Drop != "":
		return happened{at: now, id: c.Drop, kind: "deleted"}, l.file(c.Drop) != nil
	case c.Put == nil:
		return happened{}, false
	}
	h := happened{at: now, id: c.Put.ID, kind: "edited", file: c.Put}
	switch was := l.file(c.Put.ID); {
	case was == nil:
		h.kind = "uploaded"
	case was.version.ID != c.Put.version.ID:
		h.kind = "overwritten"
	case was.path() != c.Put.path():
		h.kind = "moved"
	}
	return h, true
}

// showHistory is GET /_emulator/history: what happened to which file, and the file
// from then on. Generating files is not in it.
func (e *Emulator) showHistory(r *http.Request) answer {
	type line struct {
		N      int64     `json:"n"`
		At     time.Time `json:"at"`
		FileID string    `json:"fileId"`
		Kind   string    `json:"kind"`
		File   *fileView `json:"file,omitempty"`
	}
	return recalled(r, &e.stats.history, func(n int64, h *happened) line {
		l := line{N: n, At: h.at, FileID: h.id, Kind: h.kind}
		if h.file != nil {
			v := e.current(h.file)
			l.File = &v
		}
		return l
	})
}

// showFiles is GET /_emulator/files: every file as details show it, one JSON object a
// line, whatever lags or hides.
func (e *Emulator) showFiles(*http.Request) answer {
	e.mu.RLock()
	all := append([]*record{}, e.lib.created.items...)
	for _, g := range e.lib.generations {
		for i := range g.Count {
			if !g.hidden[i] {
				all = append(all, g.record(i))
			}
		}
	}
	e.mu.RUnlock()
	return answer{status: http.StatusOK, serve: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := bufio.NewWriter(w)
		defer func() { _ = out.Flush() }() // its reader is gone, or is not
		for _, f := range all {
			b, err := encode(e.current(f))
			if err != nil {
				e.Logger.Error("emulator: file not rendered", "file", f.ID, "error", err)
				panic(http.ErrAbortHandler)
			}
			if _, err := out.Write(b); err != nil {
				return
			}
		}
	}}
}

// shape says what kind of JSON an answer's body is, which is all that its reader can
// believe of it: object, array, or text for anything else; empty for none.
func (a answer) shape() string {
	switch {
	case a.raw == nil && a.body == nil:
		return ""
	case a.raw == nil:
		if reflect.TypeOf(a.body).Kind() == reflect.Slice {
			return "array"
		}
		return "object"
	}
	var value any
	if json.Unmarshal(a.raw, &value) != nil {
		return "text"
	}
	switch value.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return "text"
}
