package spool

import (
	"testing"
)

func TestSpool(t *testing.T) {
	small := func(c *Config) { c.Segment = 4 << 10 }
	for name, all := range map[string][]Page{
		"Nothing":      nil,
		"AnEmptyPage":  {page(1)},
		"OnePage":      pages(1, 10),
		"ManyPages":    pages(12, 30),
		"LongPages":    pages(3, 1000),
		"EmptyBetween": {page(1, seen("a", 1)), page(2), page(3, seen("b", 2))},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, small)
			appended(t, s, all...)
			check(t, s, all)
			closed(t, s)
			s = open(t, dir, small)
			check(t, s, all)
			if s.Damaged() != "" {
				t.Error(s.Damaged())
			}
		})
	}
}
