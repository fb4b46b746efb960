package emulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
)

// change is one step of the account's life. A line of the journal is an array of
// them that happened together; applying the lines in order gives the account.
type change struct {
	Reset      bool           `json:"reset,omitempty"`
	Put        *record        `json:"put,omitempty"`
	Drop       string         `json:"drop,omitempty"` // a file's id
	Folder     *folder        `json:"folder,omitempty"`
	DropFolder string         `json:"dropFolder,omitempty"` // a folder's path
	Generate   *generation    `json:"generate,omitempty"`
	Hide       *hidden        `json:"hide,omitempty"`
	Token      *usedToken     `json:"token,omitempty"`
	Field      *metadataField `json:"field,omitempty"`
	DropField  string         `json:"dropField,omitempty"`
	Settings   map[string]any `json:"settings,omitempty"` // everything patched so far
	Fault      *Fault         `json:"fault,omitempty"`
	DropFault  int            `json:"dropFault,omitempty"` // a fault's number; -1 is all
	Hook       *hook          `json:"hook,omitempty"`
	DropHook   string         `json:"dropHook,omitempty"`
}

// journal is the append-only file behind the library. A change is written (so that
// kill -9 cannot take it back) before memory shows it, and synced (so that a power
// cut cannot) before anybody is answered; callers that wait together share a sync.
type journal struct {
	path string

	mu      sync.Mutex // guards everything below
	idle    *sync.Cond // a sync has ended
	f       *os.File
	size    int64
	base    int64  // size after the last rewrite; 0 when nobody knows
	written uint64 // lines appended
	synced  uint64 // of them, known to be on disk
	syncing bool
	broken  error // a failed sync or an unmendable write: nothing more is accepted
}

// newMemory is a journal that keeps nothing: it has no file.
func newMemory() *journal { return &journal{} }

// bloat is how much a journal may grow before a rewrite is worth its pause.
const bloat = 64 << 20

// openJournal replays what stands at path through apply. A last line without its
// newline was being written when the process died: nobody was answered, it is cut
// off. Any other line that does not read is damage, and refused.
func openJournal(path string, apply func(*change) error) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	size, err := replay(f, apply)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	j := &journal{path: path, f: f, size: size}
	j.idle = sync.NewCond(&j.mu)
	return j, nil
}

func replay(f io.Reader, apply func(*change) error) (size int64, err error) {
	r := bufio.NewReaderSize(f, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		var changes []change
		if err := json.Unmarshal(line, &changes); err != nil {
			return size, fmt.Errorf("line %d of the journal is damaged: %w", n, err)
		}
		for i := range changes {
			if err := apply(&changes[i]); err != nil {
				return size, fmt.Errorf("line %d of the journal: %w", n, err)
			}
		}
		size += int64(len(line))
	}
}

// append writes one line. If it cannot be written whole, what was written of it is
// taken back.
func (j *journal) append(changes []change) (uint64, error) {
	if j.f == nil {
		return 0, nil
	}
	line, err := encode(changes)
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return 0, j.broken
	}
	if _, err := j.f.Write(line); err != nil {
		if undo := j.takeBack(); undo != nil {
			j.broken = errors.Join(err, undo)
		}
		return 0, fmt.Errorf("write journal: %w", err)
	}
	j.size += int64(len(line))
	j.written++
	return j.written, nil
}

func (j *journal) takeBack() error {
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	_, err := j.f.Seek(j.size, io.SeekStart)
	return err
}

// encode is one line of JSON, ending in a newline, without HTML escapes.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// sync returns when line seq is on disk.
func (j *journal) sync(seq uint64) error {
	if j.f == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.synced < seq && j.broken == nil {
		if j.syncing {
			j.idle.Wait()
			continue
		}
		j.syncing = true
		upTo, f := j.written, j.f
		j.mu.Unlock()
		err := f.Sync()
		j.mu.Lock()
		j.syncing = false
		if err != nil {
			j.broken = fmt.Errorf("sync journal: %w", err)
		} else {
			j.synced = max(j.synced, upTo)
		}
		j.idle.Broadcast()
	}
	return j.broken
}

func (j *journal) bloated() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size > bloat && j.size > 3*j.base
}

// rewrite replaces the journal by lines that say the same in fewer words. Until
// the rename the old one stands; a crash leaves one or the other.
func (j *journal) rewrite(lines iter.Seq[change]) error {
	next, size, err := writeLines(j.path+".next", lines)
	if err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.syncing {
		j.idle.Wait()
	}
	if err := os.Rename(j.path+".next", j.path); err != nil {
		return errors.Join(fmt.Errorf("rewrite journal: %w", err), next.Close())
	}
	_ = j.f.Close()
	j.f, j.size, j.base, j.synced = next, size, size, j.written
	j.idle.Broadcast()
	return syncDir(filepath.Dir(j.path))
}

func writeLines(path string, lines iter.Seq[change]) (f *os.File, size int64, err error) {
	if f, err = os.Create(path); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	for c := range lines {
		line, err := encode([]change{c})
		if err != nil {
			return nil, 0, err
		}
		if _, err := w.Write(line); err != nil {
			return nil, 0, err
		}
		size += int64(len(line))
	}
	return f, size, errors.Join(w.Flush(), f.Sync())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (j *journal) close() error {
	if j.f == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.syncing {
		j.idle.Wait()
	}
	if errors.Is(j.broken, os.ErrClosed) {
		return nil
	}
	err := errors.Join(j.f.Sync(), j.f.Close())
	j.broken = fmt.Errorf("journal: %w", os.ErrClosed)
	j.idle.Broadcast()
	return err
}
