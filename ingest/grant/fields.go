package grant

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Field is one upload parameter as ImageKit gets it: every value is text.
type Field struct{ Name, Value string }

// Fields are upload parameters in the order the client gave them.
type Fields []Field

func (f Fields) clone() Fields { return append(Fields(nil), f...) }

func (f Fields) get(name string) string {
	for _, field := range f {
		if field.Name == name {
			return field.Value
		}
	}
	return ""
}

func (f *Fields) set(name, value string) {
	for i, field := range *f {
		if field.Name == name {
			(*f)[i].Value = value
			return
		}
	}
	*f = append(*f, Field{name, value})
}

// MarshalJSON writes an object in the order of the fields.
func (f Fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, field := range f {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := f.write(&b, field); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (f Fields) write(b *bytes.Buffer, field Field) error {
	for i, s := range []string{field.Name, field.Value} {
		if i == 1 {
			b.WriteByte(':')
		}
		raw, err := plainJSON(s)
		if err != nil {
			return err
		}
		b.Write(raw)
	}
	return nil
}

// plainJSON is json.Marshal without turning <, > and & into escapes.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode upload: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// ask is what a client asks for.
type ask struct {
	upload    Fields
	life      time.Duration // 0: it did not say
	publicKey string        // empty: it did not say
}

func readAsk(body []byte) (ask, error) {
	var asked struct {
		UploadPayload json.RawMessage `json:"uploadPayload"`
		Expire        json.RawMessage `json:"expire"`
		PublicKey     *string         `json:"publicKey"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return ask{}, refuse(CodeBadRequest, "The body is an object with uploadPayload, and expire and publicKey where wanted.")
	}
	var result ask
	var err error
	if result.upload, err = readFields(asked.UploadPayload); err != nil {
		return ask{}, err
	}
	if result.life, err = readLife(asked.Expire); err != nil {
		return ask{}, err
	}
	if asked.PublicKey != nil {
		result.publicKey = *asked.PublicKey
		if result.publicKey == "" {
			return ask{}, refuse(CodeForeignKey, "The publicKey is empty.")
		}
	}
	return result, nil
}

func readLife(raw json.RawMessage) (time.Duration, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, nil
	}
	var seconds int64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds < 1 || seconds > int64(MaxLife/time.Second) {
		return 0, refuse(CodeBadExpire, "The field expire is 1 to %d seconds.", MaxLife/time.Second)
	}
	return time.Duration(seconds) * time.Second, nil
}

// readFields reads uploadPayload, in its order. A name that occurs twice is refused:
// the token would say one thing to us and maybe another to ImageKit.
func readFields(raw json.RawMessage) (Fields, error) {
	malformed := refuse(CodeBadRequest, "The field uploadPayload is an object of upload parameters.")
	d := json.NewDecoder(bytes.NewReader(raw))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, malformed
	}
	seen := map[string]bool{}
	var fields Fields
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return nil, malformed
		}
		key, _ := name.(string)
		if err := checkName(key, seen); err != nil {
			return nil, err
		}
		if string(value) == "null" {
			continue // a form has no null: the parameter is simply not sent
		}
		text, err := stringify(key, value)
		if err != nil {
			return nil, err
		}
		fields = append(fields, Field{key, text})
	}
	return fields, nil
}

var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,63}$`)

// maxFields is above what ImageKit has parameters.
const maxFields = 64

// reserved are no upload parameters of V2: they are the file, the token and its own
// claims, or belong to V1.
var reserved = []string{"file", "token", "signature", "expire", "publicKey", "iat", "exp", "nbf", "iss", "sub", "aud", "jti"}

// shaped are the parameters that this package decides about; written otherwise they
// would pass it by.
var shaped = []string{"tags", "folder", "fileName", "customMetadata", "overwriteFile"}

func checkName(name string, seen map[string]bool) error {
	for _, r := range reserved {
		if strings.EqualFold(name, r) {
			return refuse(CodeReservedField, "The field uploadPayload.%s cannot be signed.", r)
		}
	}
	for _, s := range shaped {
		if strings.EqualFold(name, s) && name != s {
			return refuse(CodeReservedField, "The field uploadPayload.%s is written otherwise.", s)
		}
	}
	if !fieldName.MatchString(name) || seen[name] || len(seen) == maxFields {
		return refuse(CodeBadRequest, "The names in uploadPayload are letters and digits, each once, at most %d.", maxFields)
	}
	seen[name] = true
	return nil
}

// stringify is what a form field holds for a JSON value: text as it is, lists that
// ImageKit reads comma-joined so, all other structure as compact JSON.
func stringify(name string, raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", refuse(CodeBadRequest, "The field uploadPayload.%s is not valid text.", name)
		}
		return s, nil
	case '[':
		if name == "tags" || name == "responseFields" {
			return joined(name, raw)
		}
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", refuse(CodeBadRequest, "The field uploadPayload.%s is not valid JSON.", name)
	}
	return b.String(), nil
}

func joined(name string, raw json.RawMessage) (string, error) {
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", refuse(CodeBadRequest, "The field uploadPayload.%s is a list of texts.", name)
	}
	for _, s := range list {
		if strings.Contains(s, ",") {
			return "", refuse(CodeBadRequest, "No text in uploadPayload.%s holds a comma.", name)
		}
	}
	return strings.Join(list, ","), nil
}
