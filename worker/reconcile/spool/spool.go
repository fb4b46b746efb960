package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/klauspost/compress/zstd"
)

// Config is where a spool lives. Dir and ID must be set.
type Config struct {
	// Dir is this spool's own folder; it is made, private to this user. Nothing else may
	// live in it.
	Dir string
	// ID names the listing, at most 64 of file.ValidID's characters. What stands in Dir
	// under another one is dropped.
	ID string
	// SortMemory is how many bytes a sort holds at a time; 0 means 8 MiB, and less than
	// 64 KiB is 64 KiB.
	SortMemory int
	// Segment is how large a file of pages may grow before the next is begun; 0 means
	// 64 MiB.
	Segment int64
	// Recent is how many ids LastIDs keeps; 0 means 2,000.
	Recent int

	// open and sync (of a folder) are for tests; nil means the file system's.
	open func(path string) (segmentFile, error)
	sync func(folder string) error
}

func (c Config) withDefaults() Config {
	if c.SortMemory == 0 {
		c.SortMemory = 8 << 20
	}
	c.SortMemory = max(c.SortMemory, 64<<10)
	if c.Segment == 0 {
		c.Segment = 64 << 20
	}
	if c.Recent == 0 {
		c.Recent = 2000
	}
	if c.open == nil {
		c.open = openSegment
	}
	if c.sync == nil {
		c.sync = syncFolder
	}
	return c
}

// segmentFile is what a spool does with a file of pages.
type segmentFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// Spool is one listing on disk. Its methods may be called from several goroutines;
// pages are appended one after another.
type Spool struct {
	config  Config
	unlock  func()
	damaged string

	// sorting lets one sort run at a time; it is taken before mu.
	sorting sync.Mutex

	mu       sync.Mutex // guards everything below
	closed   bool
	segments []*segment
	pages    []place // by number, from 1
	chain    uint32  // the last record's checksum
	files    int64
	last     PageInfo
	recent   []string // the last ids, oldest first
	record   recorder
	sorted   *Sorted

	blocks   *lru.Cache[blockKey, []byte] // of bodies, unpacked
	unpacker *zstd.Decoder
}

// segment is one file of pages.
type segment struct {
	f   segmentFile
	end int64 // behind its last page
	// torn: an append failed, and some of it may stand behind end.
	torn bool
	// known: the folder's entry of it is on disk.
	known bool
}

// place is where a page stands.
type place struct {
	segment int32
	off     int64
	head    head
	fence   int64
	request string
	files   int64
}

var errClosed = errors.New("the spool is closed")

// cached is how many blocks of bodies are kept unpacked: some 4 MiB.
const cached = 64

// Open makes the spool in c.Dir, or opens the one that a process left there, however it
// ended. Every byte of it is read and checked. The end of a page that was being written
// is cut off; from a damaged page on everything is dropped, and Damaged says so. It is
// an error when another process, or another Spool of this one, has the folder open.
func Open(c Config) (*Spool, error) {
	c = c.withDefaults()
	if err := makeFolder(c.Dir, c.sync); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	unlock, err := lockFolder(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{config: c, unlock: unlock, chain: checksum([]byte(c.ID))}
	if err := errors.Join(s.equip(), s.load()); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open spool %s: %w", c.Dir, err)
	}
	return s, nil
}

// equip makes what works on bodies.
func (s *Spool) equip() (err error) {
	if s.record.bodies, err = newPacker(); err != nil {
		return err
	}
	if s.unpacker, err = newUnpacker(); err != nil {
		return err
	}
	s.blocks, err = lru.New[blockKey, []byte](cached)
	return err
}

// add notes a page that is on disk, in the last of the segments.
func (s *Spool) add(h head, off int64, p PageInfo, ids []string) {
	s.segments[len(s.segments)-1].end = off + h.size()
	s.pages = append(s.pages, place{int32(len(s.segments) - 1), off, h, p.Fence, p.RequestID, p.Files}) //nolint:gosec // segments are few
	s.chain, s.last = h.crc, p
	s.files += p.Files
	s.recent = append(s.recent, ids...)
	if over := len(s.recent) - s.config.Recent; over > 0 {
		s.recent = slices.Clone(s.recent[over:])
	}
}

func (s *Spool) path(name string) string { return filepath.Join(s.config.Dir, name) }

// Damaged says what Open had to drop, and why; empty when there was nothing.
func (s *Spool) Damaged() string { return s.damaged }

// Last is the last whole page; ok is false when there is none.
func (s *Spool) Last() (p PageInfo, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = s.last
	p.Cursor = append(json.RawMessage(nil), p.Cursor...)
	return p, len(s.pages) > 0
}

// Page is one page by its number.
func (s *Spool) Page(number int64) (p PageInfo, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number < 1 || number > int64(len(s.pages)) {
		return PageInfo{}, false
	}
	at := s.pages[number-1]
	return PageInfo{Number: number, Fence: at.fence, RequestID: at.request, Files: at.files}, true
}

// LastIDs are the ids that were listed last, oldest first: with them a walk recognises
// where its next page overlaps.
func (s *Spool) LastIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recent)
}

// Pages is how many pages are there.
func (s *Spool) Pages() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.pages))
}

// Files is how many lines they have; a file that was listed twice counts twice.
func (s *Spool) Files() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files
}

// Close waits for a sort under way and lets the folder go. What was sorted cannot be
// read any more.
func (s *Spool) Close() error { return s.close(func() error { return nil }) }

// Remove closes the spool and deletes its folder.
func (s *Spool) Remove() error {
	return s.close(func() error { return removeFolder(s.config.Dir) })
}

// close runs last while the lock is still held.
func (s *Spool) close(last func() error) error {
	s.sorting.Lock()
	defer s.sorting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.unpacker != nil {
		s.unpacker.Close()
	}
	var errs []error
	if s.sorted != nil {
		errs = append(errs, s.sorted.f.Close())
	}
	for _, g := range s.segments {
		errs = append(errs, g.f.Close())
	}
	errs = append(errs, last())
	s.unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close spool %s: %w", s.config.Dir, err)
	}
	return nil
}
