package emulator

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// kind is how a field compares.
type kind int

const (
	kindText   kind = iota
	kindChoice      // text without prefix and full text
	kindPath
	kindWords // a list of texts
	kindTime
	kindNumber
	kindSize // a number that may be written with kb or mb
	kindFlag
)

var comparisons = []string{"=", "<", "<=", ">", ">=", "IN", "NOT =", "NOT IN"}

// allowed are the operators of each kind.
var allowed = map[kind][]string{
	kindText:   {"=", ":", "IN", "NOT =", "NOT IN", "HAS", "EXISTS", "NOT EXISTS"},
	kindChoice: {"=", "IN", "NOT =", "NOT IN"},
	kindPath:   {"=", ":", "IN", "NOT =", "NOT IN"},
	kindWords:  {"IN", "NOT IN", "HAS", "EXISTS", "NOT EXISTS"},
	kindTime:   comparisons,
	kindNumber: append([]string{"EXISTS", "NOT EXISTS"}, comparisons...),
	kindSize:   comparisons,
	kindFlag:   {"=", "EXISTS", "NOT EXISTS"},
}

// operand is a value of a query, read for its field's kind.
type operand struct {
	text   string
	number float64 // also epoch ms and, for a flag, 1 or 0
}

// value is what a file has in a field; the zero value is nothing at all.
type value struct {
	has    bool
	text   string
	words  []string
	number float64
}

func textValue(s string) value    { return value{has: s != "", text: s} }
func numberValue(n float64) value { return value{has: true, number: n} }
func wordsValue(w []string) value { return value{has: len(w) > 0, words: w} }
func flagValue(b bool) value      { return value{has: true, number: flagNumber(b)} }
func flagNumber(b bool) (n float64) {
	if b {
		n = 1
	}
	return n
}

// settle reads a clause's words for the kind of its field.
func (c *clause) settle(k kind, now time.Time) error {
	c.kind = k
	if !slices.Contains(allowed[k], c.op) {
		return fmt.Errorf("the field %s does not take %s", c.field, c.op)
	}
	for _, w := range c.words {
		o, err := w.read(k, now)
		if err != nil {
			return fmt.Errorf("the field %s: %w", c.field, err)
		}
		c.operands = append(c.operands, o)
	}
	return nil
}

func (w word) read(k kind, now time.Time) (o operand, err error) {
	o.text = w.text
	switch k {
	case kindTime:
		o.number, err = readTime(w.text, now)
	case kindNumber:
		o.number, err = strconv.ParseFloat(w.text, 64)
	case kindSize:
		o.number, err = readSize(w.text)
	case kindFlag:
		if w.quoted || w.text != "true" && w.text != "false" {
			return o, fmt.Errorf("%s is not true or false", w)
		}
		o.number = flagNumber(w.text == "true")
	case kindPath:
		o.text = "/" + strings.Trim(w.text, "/")
	default:
		if !w.quoted {
			return o, fmt.Errorf("%s must stand in double quotes", w)
		}
	}
	return o, err
}

// readTime reads a date, a time (UTC) or an age, which means that long ago.
func readTime(s string, now time.Time) (float64, error) {
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return float64(t.UnixMilli()), nil
		}
	}
	n, err := strconv.ParseUint(strings.TrimRight(s, "hdwmy"), 10, 16)
	if err != nil || s == "" {
		return 0, fmt.Errorf("%q is not a time", s)
	}
	count := int(n)
	switch strings.TrimLeft(s, "0123456789") {
	case "h":
		now = now.Add(-time.Duration(count) * time.Hour)
	case "d":
		now = now.AddDate(0, 0, -count)
	case "w":
		now = now.AddDate(0, 0, -7*count)
	case "m":
		now = now.AddDate(0, -count, 0)
	case "y":
		now = now.AddDate(-count, 0, 0)
	default:
		return 0, fmt.Errorf("%q is not a time", s)
	}
	return float64(now.UnixMilli()), nil
}

func readSize(s string) (float64, error) {
	s = strings.ToLower(s)
	unit := 1.0
	for suffix, n := range map[string]float64{"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30} {
		if text, found := strings.CutSuffix(s, suffix); found {
			s, unit = strings.TrimSpace(text), n
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n * unit, nil
}

func (g *group) holds(of func(string) value) bool {
	for _, p := range g.parts {
		if p.holds(of) == (g.op == "OR") {
			return g.op == "OR"
		}
	}
	return g.op == "AND"
}

func (n *negation) holds(of func(string) value) bool { return !n.part.holds(of) }

func (c *clause) holds(of func(string) value) bool {
	v := of(c.field)
	switch c.op {
	case "EXISTS":
		return v.has
	case "NOT EXISTS":
		return !v.has
	case "NOT =", "NOT IN":
		return !c.any(v)
	case "HAS":
		return v.has && hasTokens(v, c.operands[0].text)
	case "=", "IN":
		return c.any(v)
	}
	return v.has && c.compares(v, c.operands[0])
}

// any: the value equals one of the operands.
func (c *clause) any(v value) bool {
	return v.has && slices.ContainsFunc(c.operands, func(o operand) bool { return c.equals(v, o) })
}

func (c *clause) equals(v value, o operand) bool {
	switch c.kind {
	case kindTime, kindNumber, kindSize, kindFlag:
		return v.number == o.number
	case kindWords:
		return slices.Contains(v.words, o.text)
	}
	return v.text == o.text
}

func (c *clause) compares(v value, o operand) bool {
	if c.op == ":" {
		return begins(c.kind, v.text, o.text)
	}
	d := cmp.Compare(v.number, o.number)
	switch c.op {
	case "<":
		return d < 0
	case "<=":
		return d <= 0
	case ">":
		return d > 0
	}
	return d >= 0
}

// begins: a path begins with whole folders, a text with any part of it.
func begins(k kind, s, with string) bool {
	if k != kindPath {
		return strings.HasPrefix(s, with)
	}
	return with == "/" || s == with || strings.HasPrefix(s, with+"/")
}

// hasTokens: every token asked for is there, the last one perhaps only begun; case
// does not matter.
func hasTokens(v value, ask string) bool {
	have := tokens(v.text)
	for _, w := range v.words {
		have = append(have, tokens(w)...)
	}
	want := tokens(ask)
	for i, w := range want {
		last := i == len(want)-1
		if !slices.ContainsFunc(have, func(h string) bool { return h == w || last && strings.HasPrefix(h, w) }) {
			return false
		}
	}
	return len(want) > 0
}

func tokens(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}
