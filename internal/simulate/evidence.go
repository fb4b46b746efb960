package simulate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/queue/envelope"
	"github.com/trueup/trueup/internal/simulate/queue"
)

// evidence is everything that is known without asking trueup.
func (w *world) evidence() check.Evidence {
	r := w.record
	e := check.Evidence{Settings: w.settings(), Acks: r.sorted(), Stream: w.messages(), Stored: w.stored()}
	e.Dump, e.Truth, e.History, e.Requests = w.dump(), w.truth(), w.history(), w.imagekit.requests()
	slices.SortStableFunc(e.Requests, func(a, b check.Request) int { return a.At.Compare(b.At) })
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Lies, e.Series, e.Hands, e.Starts = gathered(r.lies), gathered(r.series), gathered(r.hands), gathered(r.starts)
	slices.SortFunc(e.Starts, func(a, b time.Time) int { return cmp.Compare(a.UnixNano(), b.UnixNano()) })
	return e
}

// gathered says that something was gathered, though it may be nothing.
func gathered[T any](list []T) []T { return append([]T{}, list...) }

func (w *world) dump() check.Dump {
	d := w.database.Dump()
	d.Rows, d.States, d.Ledger, d.Retries, d.DeadLetters = gathered(d.Rows), gathered(d.States), gathered(d.Ledger), gathered(d.Retries), gathered(d.DeadLetters)
	d.Runs, d.Findings, d.Audit, d.Expired = gathered(d.Runs), gathered(d.Findings), gathered(d.Audit), gathered(d.Expired)
	return d
}

// messages are what the stream holds.
func (w *world) messages() []check.Message {
	return messagesOf(w.stream.Held())
}

func messagesOf(held []queue.Message) []check.Message {
	all := []check.Message{}
	for _, m := range held {
		all = append(all, check.Message{Sequence: m.Sequence, ID: m.Header["Nats-Msg-Id"], StoredAt: m.StoredAt, Data: m.Data})
	}
	return all
}

// stored are the ids of all events that were ever in the stream.
func (w *world) stored() []string {
	ids := []string{}
	for _, m := range w.stream.Ever() {
		e, err := envelope.Decode(m.Data)
		if err != nil {
			w.record.wrong("stream", "message %d does not decode: %v", m.Sequence, err)
			continue
		}
		for i := range e.Events {
			ids = append(ids, e.Events[i].ID)
		}
	}
	return ids
}

// fromLibrary asks the library's control, which knows no faults.
func (w *world) fromLibrary(path string) []byte {
	a, err := roundTrip(w.ctx, w.ours, asked{method: http.MethodGet, path: "/_emulator/" + path})
	if err != nil || a.status != http.StatusOK {
		w.record.wrong("library", "GET %s: %d %v", path, a.status, err)
	}
	return a.body
}

// truth is what ImageKit holds.
func (w *world) truth() map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	for line := range bytes.Lines(w.fromLibrary("files")) {
		var f struct {
			ID string `json:"fileId"`
		}
		if json.Unmarshal(line, &f) == nil {
			all[f.ID] = bytes.TrimSpace(line)
		}
	}
	return all
}

// history is what ever happened to which file.
func (w *world) history() []check.Change {
	var said struct {
		Items []struct {
			At     time.Time
			FileID string
			Kind   check.ChangeKind
			File   json.RawMessage
		}
	}
	if err := json.Unmarshal(w.fromLibrary("history"), &said); err != nil {
		w.record.wrong("library", "history: %v", err)
	}
	all := []check.Change{}
	for _, h := range said.Items {
		all = append(all, check.Change{At: h.At, FileID: h.FileID, Kind: h.Kind, File: h.File})
	}
	return all
}
