package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// load takes in the pages that stand in the folder, and drops what does not check.
func (s *Spool) load() error {
	names, err := segmentNames(s.config.Dir)
	if err != nil {
		return err
	}
	sc := &scanner{id: s.config.ID, prev: s.chain}
	for i, name := range names {
		if name != segmentName(i+1) {
			s.damaged = fmt.Sprintf("%s is missing: what followed page %d is dropped", segmentName(i+1), sc.last)
			return s.drop(names[i:])
		}
		why, err := s.loadSegment(sc, name)
		if err != nil {
			return err
		}
		if why == nil {
			continue
		}
		if rest := names[i+1:]; len(rest) > 0 || !errors.Is(why, errTorn) {
			s.damaged = fmt.Sprintf("page %d in %s is damaged (%v): it and what followed are dropped", sc.last+1, name, why)
		}
		return s.drop(names[i+1:])
	}
	return s.settle()
}

// loadSegment takes in the pages of one file, up to its end or to what is wrong.
func (s *Spool) loadSegment(sc *scanner, name string) (wrong, err error) {
	info, err := os.Stat(s.path(name))
	if err != nil {
		return nil, err
	}
	f, err := s.config.open(s.path(name))
	if err != nil {
		return nil, err
	}
	s.segments = append(s.segments, &segment{f: f})
	sc.f, sc.off, sc.size = f, 0, info.Size()
	var ids []string
	note := func(l *line) error {
		ids = append(ids, string(l.name()))
		return nil
	}
	for {
		ids = ids[:0]
		p, err := sc.next(note)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
		s.add(p.head, p.off, p.PageInfo, ids)
	}
}

// drop removes these files, the last one first: if it is cut short, the next Open sees
// the same damage.
func (s *Spool) drop(names []string) error {
	for i := len(names) - 1; i >= 0; i-- {
		if err := os.Remove(s.path(names[i])); err != nil {
			return err
		}
	}
	return s.settle()
}

// settle cuts off what stands behind the last page, and makes sure of what stands: a
// process may have been killed between writing a page and syncing it.
func (s *Spool) settle() error {
	if len(s.segments) == 0 {
		return nil
	}
	g := s.segments[len(s.segments)-1]
	if err := g.f.Truncate(g.end); err != nil {
		return err
	}
	if err := g.f.Sync(); err != nil {
		return err
	}
	for _, g := range s.segments {
		g.known = true
	}
	return s.config.sync(s.config.Dir)
}
