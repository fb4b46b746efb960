package spool

import (
	"fmt"
	"math"
)

// Append stores the page that follows the last one; it is durable when Append returns
// nil. After an error the page may stand on disk or not, and the same call may be made
// again: nothing comes twice, and a page that is there already, by number and fence, is
// left alone.
func (s *Spool) Append(p Page) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.append(&p); err != nil {
		return fmt.Errorf("append page %d to the spool: %w", p.Number, err)
	}
	return nil
}

func (s *Spool) append(p *Page) error {
	last := int64(len(s.pages))
	switch {
	case s.closed:
		return errClosed
	case p.Number == last && last > 0 && p.Fence == s.last.Fence:
		return nil
	case p.Number != last+1 || p.Number > math.MaxUint32:
		return fmt.Errorf("the next page is number %d", last+1)
	}
	rec, h, err := s.record.page(s.config.ID, s.chain, p)
	if err != nil {
		return err
	}
	if err := s.room(int64(len(rec))); err != nil {
		return err
	}
	if err := s.write(rec); err != nil {
		return err
	}
	s.note(h, p)
	return nil
}

// room begins the next file when the current one would grow too large.
func (s *Spool) room(n int64) error {
	if have := len(s.segments); have > 0 {
		if end := s.segments[have-1].end; end == 0 || end+n <= s.config.Segment {
			return nil
		}
	}
	f, err := s.config.open(s.path(segmentName(len(s.segments) + 1)))
	if err != nil {
		return err
	}
	s.segments = append(s.segments, &segment{f: f, torn: true})
	return nil
}

// write puts a record behind the last one and syncs it. Until it has succeeded the file
// counts as torn.
func (s *Spool) write(rec []byte) error {
	g := s.segments[len(s.segments)-1]
	if g.torn {
		if err := g.f.Truncate(g.end); err != nil {
			return err
		}
	}
	g.torn = true
	if _, err := g.f.WriteAt(rec, g.end); err != nil {
		return err
	}
	if err := g.f.Sync(); err != nil {
		return err
	}
	if !g.known {
		if err := s.config.sync(s.config.Dir); err != nil {
			return err
		}
	}
	g.torn, g.known = false, true
	return nil
}

// note takes in the page that was written.
func (s *Spool) note(h head, p *Page) {
	ids := make([]string, len(p.Lines))
	for i := range p.Lines {
		ids[i] = p.Lines[i].FileID
	}
	info := PageInfo{Number: p.Number, Fence: p.Fence, RequestID: p.RequestID, Files: int64(len(p.Lines))}
	if p.Cursor != nil {
		info.Cursor = append(info.Cursor, p.Cursor...)
	}
	s.add(h, s.segments[len(s.segments)-1].end, info, ids)
}
