package answer

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of custom metadata. ImageKit's own is flat; a
// database's JSON parser has a stack to lose.
const maxDepth = 64

// withoutNUL replaces what a text column cannot hold.
func withoutNUL(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

func storable(s *string) *string {
	if s == nil {
		return nil
	}
	t := withoutNUL(*s)
	return &t
}

// metadata reads customMetadata into an object that a jsonb column takes, without
// the ticket field; nil when nothing is left. It is written anew rather than
// passed on: the database refuses U+0000, half a surrogate pair and numbers of a
// million digits, all of which are valid JSON.
func (a *Reader) metadata(raw []byte) (object json.RawMessage, ticket string, err error) {
	if len(raw) == 0 || string(raw) == "null" || string(raw) == "{}" {
		return nil, "", nil
	}
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if decoder.Decode(&fields) != nil {
		return nil, "", errors.New("its customMetadata is no object")
	}
	ticket = a.takeTicket(fields)
	if len(fields) == 0 {
		return nil, ticket, nil
	}
	clean, err := cleaned(fields, maxDepth)
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(clean); err != nil {
		return nil, "", errors.New("its customMetadata cannot be written")
	}
	return bytes.TrimSpace(out.Bytes()), ticket, nil
}

// takeTicket removes the ticket field and returns what it holds when that looks
// like a ticket.
func (a *Reader) takeTicket(fields map[string]any) string {
	if a.TicketField == "" {
		return ""
	}
	value, _ := fields[a.TicketField].(string)
	delete(fields, a.TicketField)
	if !a.LooksLikeTicket(value) {
		return ""
	}
	return value
}

func cleaned(value any, depth int) (any, error) {
	if depth == 0 {
		return nil, errors.New("its customMetadata is nested too deeply")
	}
	switch v := value.(type) {
	case string:
		return withoutNUL(v), nil
	case json.Number:
		return numeric(v), nil
	case []any:
		for i := range v {
			element, err := cleaned(v[i], depth-1)
			if err != nil {
				return nil, err
			}
			v[i] = element
		}
		return v, nil
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, member := range v {
			element, err := cleaned(member, depth-1)
			if err != nil {
				return nil, err
			}
			object[withoutNUL(key)] = element
		}
		return object, nil
	}
	return value, nil
}

// numeric keeps a number as it was written. One too large for a double, or of
// hundreds of digits, becomes text, and one too small becomes 0: a database
// refuses some of them.
func numeric(n json.Number) any {
	f, err := strconv.ParseFloat(n.String(), 64)
	switch {
	case err != nil || len(n) > 400:
		return n.String()
	case f == 0:
		return json.Number("0")
	}
	return n
}
