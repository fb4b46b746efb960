package emulator

import (
	"fmt"
	"slices"
	"strings"
)

// A searchQuery, and the checks of an upload, are clauses
//
//	field op value
//
// joined by AND (binds tighter) and OR, negated by NOT, grouped by parentheses.
// Keywords are upper case. Text stands in double quotes with backslash escapes,
// lists in brackets; numbers, dates, true and false may be bare. This file reads
// text into a tree; match.go gives it meaning.

// expression is a clause, group or negation.
type expression interface {
	fmt.Stringer
	holds(of func(field string) value) bool
}

type clause struct {
	field string
	op    string
	words []word
	list  bool

	kind     kind
	operands []operand
}

// word is a value as written.
type word struct {
	text   string
	quoted bool
}

type group struct {
	op    string // AND or OR
	parts []expression
}

type negation struct{ part expression }

func (w word) String() string {
	if !w.quoted {
		return w.text
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w.text) + `"`
}

func (c *clause) String() string {
	field := c.field
	if strings.Contains(field, ".") {
		field = word{text: field, quoted: true}.String()
	}
	if strings.HasSuffix(c.op, "EXISTS") {
		return field + " " + c.op
	}
	if !c.list {
		return field + " " + c.op + " " + c.words[0].String()
	}
	parts := make([]string, len(c.words))
	for i, w := range c.words {
		parts[i] = w.String()
	}
	return field + " " + c.op + " [" + strings.Join(parts, ",") + "]"
}

func (g *group) String() string {
	parts := make([]string, len(g.parts))
	for i, p := range g.parts {
		parts[i] = p.String()
	}
	return "(" + strings.Join(parts, " "+g.op+" ") + ")"
}

func (n *negation) String() string { return "NOT (" + n.part.String() + ")" }

// parser is a recursive descent over the text; at is where it stands.
type parser struct {
	text  string
	at    int
	depth int
	bind  func(*clause) error
}

// deepest bounds parentheses, so that no query can exhaust the stack.
const deepest = 50

// parseQuery reads text; bind is asked whether each clause makes sense.
func parseQuery(text string, bind func(*clause) error) (expression, error) {
	p := &parser{text: text, bind: bind}
	x, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.wrong("the end")
	}
	return x, nil
}

func (p *parser) wrong(wanted string) error {
	rest := p.text[p.at:]
	if len(rest) > 20 {
		rest = strings.ToValidUTF8(rest[:20], "") + "…"
	}
	return fmt.Errorf("expected %s at character %d, found %q", wanted, p.at, rest)
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take eats a symbol if it is next.
func (p *parser) take(symbol string) bool {
	p.space()
	if strings.HasPrefix(p.text[p.at:], symbol) {
		p.at += len(symbol)
		return true
	}
	return false
}

// keyword eats a whole word if it is next.
func (p *parser) keyword(w string) bool {
	before := p.at
	if p.take(w) && (p.at == len(p.text) || !bareByte(p.text[p.at])) {
		return true
	}
	p.at = before
	return false
}

func bareByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-' || c == '+' || c == '.' || c >= 0x80
}

func (p *parser) either() (expression, error) { return p.joined("OR", p.both) }
func (p *parser) both() (expression, error)   { return p.joined("AND", p.one) }

func (p *parser) joined(op string, part func() (expression, error)) (expression, error) {
	first, err := part()
	if err != nil {
		return nil, err
	}
	parts := []expression{first}
	for p.keyword(op) {
		next, err := part()
		if err != nil {
			return nil, err
		}
		parts = append(parts, next)
	}
	if len(parts) == 1 {
		return first, nil
	}
	return &group{op: op, parts: parts}, nil
}

func (p *parser) one() (expression, error) {
	if p.depth++; p.depth > deepest {
		return nil, fmt.Errorf("nested deeper than %d", deepest)
	}
	defer func() { p.depth-- }()
	if p.keyword("NOT") {
		part, err := p.one()
		return &negation{part: part}, err
	}
	if !p.take("(") {
		return p.clause()
	}
	x, err := p.either()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.wrong(")")
	}
	return x, nil
}

func (p *parser) clause() (expression, error) {
	field, err := p.field()
	if err != nil {
		return nil, err
	}
	c := &clause{field: field}
	if c.op = p.operator(); c.op == "" {
		return nil, p.wrong("an operator")
	}
	switch {
	case strings.HasSuffix(c.op, "EXISTS"):
	case strings.HasSuffix(c.op, "IN"):
		c.list = true
		c.words, err = p.list()
	default:
		var w word
		w, err = p.word()
		c.words = []word{w}
	}
	if err != nil {
		return nil, err
	}
	return c, p.bind(c)
}

func (p *parser) field() (string, error) {
	p.space()
	w, err := p.word()
	if err != nil || w.text == "" {
		return "", p.wrong("a field")
	}
	if !w.quoted && strings.Contains(w.text, ".") {
		return "", fmt.Errorf("the field %s must stand in double quotes", w.text)
	}
	return w.text, nil
}

// operators, longer ones first where one begins another.
var symbols = []string{"<=", ">=", "=", ":", "<", ">"}

func (p *parser) operator() string {
	for _, s := range symbols {
		if p.take(s) {
			return s
		}
	}
	before := p.at
	not := ""
	if p.keyword("NOT") {
		if p.take("=") {
			return "NOT ="
		}
		not = "NOT "
	}
	for _, w := range []string{"IN", "EXISTS", "HAS"} {
		if (w != "HAS" || not == "") && p.keyword(w) {
			return not + w
		}
	}
	p.at = before
	return ""
}

func (p *parser) list() (words []word, err error) {
	if !p.take("[") {
		return nil, p.wrong("[")
	}
	for {
		w, err := p.word()
		if err != nil {
			return nil, err
		}
		words = append(words, w)
		if p.take("]") {
			return words, nil
		}
		if !p.take(",") {
			return nil, p.wrong(", or ]")
		}
	}
}

func (p *parser) word() (word, error) {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == '"' {
		return p.quoted()
	}
	start := p.at
	// A bare time has colons inside; a field never meets one without a space or an
	// operator behind it, because 12:30 needs a digit on both sides.
	for p.at < len(p.text) && (bareByte(p.text[p.at]) || p.text[p.at] == ':' && p.betweenDigits()) {
		p.at++
	}
	if p.at == start {
		return word{}, p.wrong("a value")
	}
	w := p.text[start:p.at]
	if slices.Contains([]string{"AND", "OR", "NOT", "IN", "HAS", "EXISTS"}, w) {
		p.at = start
		return word{}, p.wrong("a value")
	}
	return word{text: w}, nil
}

func (p *parser) betweenDigits() bool {
	digit := func(i int) bool { return i >= 0 && i < len(p.text) && p.text[i] >= '0' && p.text[i] <= '9' }
	return digit(p.at-1) && digit(p.at+1)
}

func (p *parser) quoted() (word, error) {
	var b strings.Builder
	for i := p.at + 1; i < len(p.text); i++ {
		switch c := p.text[i]; c {
		case '\\':
			if i++; i < len(p.text) {
				b.WriteByte(p.text[i])
			}
		case '"':
			p.at = i + 1
			return word{text: b.String(), quoted: true}, nil
		default:
			b.WriteByte(c)
		}
	}
	return word{}, p.wrong("a closing quote")
}
