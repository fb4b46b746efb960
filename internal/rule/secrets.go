package rule

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/trueup/trueup/internal/event"
)

// shortestSecret: anything shorter would mask ordinary text.
const shortestSecret = 8

// Secrets are the values that no dead letter may hold.
type Secrets [][]byte

func NewSecrets(all [][]byte) Secrets {
	var out Secrets
	for _, s := range all {
		if len(s) >= shortestSecret {
			out = append(out, bytes.Clone(s))
		}
	}
	return out
}

// find returns where b holds a secret: sorted, apart from each other.
func (s Secrets) find(b []byte) []event.Span {
	var all []event.Span
	for _, secret := range s {
		for from := 0; ; {
			i := bytes.Index(b[from:], secret)
			if i < 0 {
				break
			}
			all = append(all, event.Span{From: from + i, To: from + i + len(secret)})
			from += i + 1
		}
	}
	slices.SortFunc(all, func(a, b event.Span) int { return cmp.Or(a.From-b.From, a.To-b.To) })
	var out []event.Span
	for _, span := range all {
		if n := len(out); n > 0 && span.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, span.To)
			continue
		}
		out = append(out, span)
	}
	return out
}

// Mask returns b with every secret replaced by as many '*', and where they were. Without
// a secret it is b itself.
func (s Secrets) Mask(b []byte) ([]byte, []event.Span) {
	spans := s.find(b)
	if len(spans) == 0 {
		return b, []event.Span{}
	}
	out := bytes.Clone(b)
	for _, span := range spans {
		for i := span.From; i < span.To; i++ {
			out[i] = '*'
		}
	}
	return out, spans
}

func (s Secrets) Text(t string) string {
	b, spans := s.Mask([]byte(t))
	if len(spans) == 0 {
		return t
	}
	return string(b)
}

func (s Secrets) headers(h map[string]string) map[string]string {
	out := make(map[string]string, len(h))
	for k, v := range h {
		out[k] = s.Text(v)
	}
	return out
}

func (s Secrets) attempts(all []event.Attempt) []event.Attempt {
	out := slices.Clone(all)
	for i := range out {
		out[i].Excerpt = s.Text(out[i].Excerpt)
	}
	return out
}

// Hide masks the secrets in everything of the event that becomes part of a dead letter,
// and returns where the body held them.
func (s Secrets) Hide(e *Ended) []event.Span {
	var spans []event.Span
	e.Body, spans = s.Mask(e.Body)
	if len(s) == 0 {
		return spans
	}
	e.Headers, e.Attempts, e.End.Note = s.headers(e.Headers), s.attempts(e.Attempts), s.Text(e.End.Note)
	if e.End.Attempt != nil {
		e.End.Attempt = &s.attempts([]event.Attempt{*e.End.Attempt})[0]
	}
	return spans
}
