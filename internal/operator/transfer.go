package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// Imported is what an import did.
type Imported struct {
	// Import names it: as a filter, what came with it. The same file has the same one.
	Import string `json:"import"`
	Total  int64  `json:"total"`
	// Inserted are new here; Known were here already and are left as they are.
	Inserted int `json:"inserted"`
	Known    int `json:"known"`
}

const archiveMedia = "application/x-ndjson"

// patience is how long one end may take to move on during an export or import: the
// listener's own limits are meant for small answers.
const patience = time.Minute

// deadExport streams an archive. A failure on the way leaves it without a trailer and
// the connection broken, so that nobody takes it for whole.
func (h *Handler) deadExport(w http.ResponseWriter, r *http.Request) {
	f, err := filterOf(r.URL.Query())
	if err != nil {
		fail(w, h.problemOf(r, err))
		return
	}
	if _, err := h.Service.CountDead(r.Context(), f); err != nil { // names unknown ids before anything is sent
		fail(w, h.problemOf(r, err))
		return
	}
	w.Header().Set("Content-Type", archiveMedia)
	w.Header().Set("Content-Disposition", `attachment; filename="dead-letters.ndjson"`)
	if err := h.export(w, r, f); err != nil {
		h.Logger.WarnContext(r.Context(), "dead.export_broken_off", "request_id", idOf(r), "error", err.Error())
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) export(w http.ResponseWriter, r *http.Request, f event.Filter) error {
	connection := http.NewResponseController(w)
	a, err := newArchiveWriter(w)
	if err != nil {
		return err
	}
	// Now a failure breaks an answer off, rather than being none.
	_ = connection.Flush()
	err = h.Service.ExportDead(r.Context(), f, func(d event.DeadLetter) error {
		// A writer without deadlines (a test's) has none to move.
		_ = connection.SetWriteDeadline(time.Now().Add(patience))
		return a.add(d)
	})
	if err != nil {
		return err
	}
	return a.close()
}

// deadImport takes an archive: all of it is read and checked before anything is stored.
func (h *Handler) deadImport(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if !saneKey.MatchString(key) {
		fail(w, errNoKey)
		return
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != archiveMedia {
		fail(w, &Problem{http.StatusUnsupportedMediaType, errMediaType.Code, "the body must be " + archiveMedia + ", as dead/export gives it"})
		return
	}
	note := r.URL.Query().Get("note")
	out, err := h.importFrom(r.Context(), h.incoming(w, r), Act{Who: callerOf(r), Note: note, Key: key})
	if err != nil {
		fail(w, h.problemOf(r, err))
		return
	}
	h.acted(r, "import", note, "import", out.Import, "inserted", out.Inserted, "known", out.Known)
	answer(w, http.StatusOK, out)
}

// incoming is the body, bounded, with a deadline that moves as long as it does.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) io.Reader {
	connection := http.NewResponseController(w)
	body := http.MaxBytesReader(w, r.Body, h.ImportMost)
	return reading(func(p []byte) (int, error) {
		// A writer without deadlines (a test's) has none to move.
		_ = connection.SetReadDeadline(time.Now().Add(patience))
		_ = connection.SetWriteDeadline(time.Now().Add(2 * patience))
		return body.Read(p)
	})
}

type reading func([]byte) (int, error)

func (f reading) Read(p []byte) (int, error) { return f(p) }

func (h *Handler) importFrom(ctx context.Context, body io.Reader, act Act) (Imported, error) {
	spool, err := os.CreateTemp(h.SpoolDir, "trueup-import-*")
	if err != nil {
		return Imported{}, fmt.Errorf("spool import: %w", err)
	}
	defer func() { _, _ = spool.Close(), os.Remove(spool.Name()) }() // a leftover is the system's to clear
	whole := newArchiveReader(io.TeeReader(body, spool))
	if err := drain(whole); err != nil {
		// Whoever is still sending would not read the answer.
		_, _ = io.Copy(io.Discard, body)
		return Imported{}, importProblem(err)
	}
	out := Imported{Import: whole.chain, Total: whole.count}
	if out.Total == 0 {
		return out, nil
	}
	out.Import = out.Import[:32]
	out.Inserted, out.Known, err = h.Service.Import(ctx, out.Import, again(spool), act)
	return out, err
}

// again reads the spooled letters once more, as often as it is asked.
func again(spool io.ReadSeeker) iter.Seq2[event.DeadLetter, error] {
	return func(yield func(event.DeadLetter, error) bool) {
		if _, err := spool.Seek(0, io.SeekStart); err != nil {
			yield(event.DeadLetter{}, fmt.Errorf("read spooled import: %w", err))
			return
		}
		for a := newArchiveReader(spool); ; {
			d, err := a.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				err = fmt.Errorf("read spooled import: %w", err)
			}
			if !yield(arriving(d), err) || err != nil {
				return
			}
		}
	}
}

// arriving is a letter as it stands here: what was on its way over there is not on its
// way here.
func arriving(d event.DeadLetter) event.DeadLetter {
	if d.State == event.LetterReplaying {
		d.State = event.LetterDead
	}
	d.ReplayEvent = ""
	return d
}

// drain reads to the end.
func drain(a *archiveReader) error {
	for {
		if _, err := a.next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func importProblem(err error) error {
	var line *badLine
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &line):
		return &Problem{http.StatusBadRequest, "invalid_export", line.Error() + "; nothing was imported"}
	case errors.As(err, &large):
		return &Problem{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the export is larger than %d bytes; nothing was imported", large.Limit)}
	}
	return &Problem{http.StatusBadRequest, "import_broken_off", "the upload broke off; nothing was imported"}
}
