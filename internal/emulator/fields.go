package emulator

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// metadataField is a custom metadata field of the account. Values are accepted
// only for fields that exist, unless settings.anyCustomMetadata.
type metadataField struct {
	ID     string      `json:"id"`
	Name   string      `json:"name"`
	Label  string      `json:"label"`
	Schema fieldSchema `json:"schema"`
}

type fieldSchema struct {
	Type          string          `json:"type"`
	DefaultValue  json.RawMessage `json:"defaultValue,omitempty"`
	IsRequired    bool            `json:"isValueRequired,omitempty"`
	MinLength     *int            `json:"minLength,omitempty"`
	MaxLength     *int            `json:"maxLength,omitempty"`
	MinValue      json.RawMessage `json:"minValue,omitempty"`
	MaxValue      json.RawMessage `json:"maxValue,omitempty"`
	SelectOptions []any           `json:"selectOptions,omitempty"`
}

var fieldTypes = []string{"Text", "Textarea", "Number", "Date", "Boolean", "SingleSelect", "MultiSelect"}

func (l *library) field(name string) *metadataField {
	i := slices.IndexFunc(l.fields, func(f *metadataField) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return l.fields[i]
}

// checkMetadata says what is wrong with which value; nil when nothing is. A null
// takes a value away and needs no check.
func (e *Emulator) checkMetadata(values map[string]any) map[string]string {
	if e.settings.Load().AnyCustomMetadata || len(values) == 0 {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	wrong := map[string]string{}
	for name, v := range values {
		f := e.lib.field(name)
		switch {
		case f == nil:
			wrong[name] = "The field does not exist."
		case v != nil && !f.Schema.takes(v):
			wrong[name] = "The value is not a valid " + f.Schema.Type + "."
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return wrong
}

func refuseMetadata(wrong map[string]string) answer {
	return answer{status: http.StatusBadRequest, body: map[string]any{"message": sayInvalidMetadata, "help": help, "errors": wrong}}
}

func (s *fieldSchema) takes(v any) bool {
	switch s.Type {
	case "Text", "Textarea":
		text, isText := v.(string)
		n := len([]rune(text))
		return isText && (s.MinLength == nil || n >= *s.MinLength) && (s.MaxLength == nil || n <= *s.MaxLength)
	case "Number":
		n, isNumber := v.(float64)
		return isNumber && within(n, s.MinValue, s.MaxValue)
	case "Boolean":
		_, isBool := v.(bool)
		return isBool
	case "Date":
		text, isText := v.(string)
		_, err := time.Parse(time.RFC3339, text)
		return isText && err == nil
	case "SingleSelect":
		return slices.Contains(s.SelectOptions, v)
	}
	list, isList := v.([]any)
	return isList && !slices.ContainsFunc(list, func(v any) bool { return !comparableValue(v) || !slices.Contains(s.SelectOptions, v) })
}

func comparableValue(v any) bool {
	switch v.(type) {
	case string, float64, bool:
		return true
	}
	return false
}

func within(n float64, low, high json.RawMessage) bool {
	var l, h float64
	if json.Unmarshal(low, &l) == nil && n < l {
		return false
	}
	return json.Unmarshal(high, &h) != nil || n <= h
}

func (e *Emulator) listFields(*http.Request) answer {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return ok(append([]*metadataField{}, e.lib.fields...))
}

func (e *Emulator) createField(r *http.Request) answer {
	var f metadataField
	if err := decodeBody(r, &f); err != nil || f.Name == "" || f.Label == "" || strings.Contains(f.Name, `"`) {
		return refuse(http.StatusBadRequest, "A custom metadata field has a name and a label.")
	}
	if !slices.Contains(fieldTypes, f.Schema.Type) {
		return refuse(http.StatusBadRequest, "schema.type is one of "+strings.Join(fieldTypes, ", ")+".")
	}
	return e.change(func() ([]change, answer) {
		if e.lib.field(f.Name) != nil {
			return nil, refuse(http.StatusBadRequest, "A custom metadata field with this name already exists.")
		}
		f.ID = newID(e.Now())
		return []change{{Field: &f}}, answer{status: http.StatusCreated, body: &f}
	})
}

// changeField is PATCH: label and schema, never the name.
func (e *Emulator) changeField(r *http.Request) answer {
	var patch struct {
		Label  *string         `json:"label"`
		Schema json.RawMessage `json:"schema"`
	}
	if err := decodeBody(r, &patch); err != nil {
		return refuse(http.StatusBadRequest, "The body is not a custom metadata field.")
	}
	return e.withField(r, func(f metadataField) ([]change, answer) {
		if patch.Label != nil {
			f.Label = *patch.Label
		}
		kind := f.Schema.Type
		if patch.Schema != nil && json.Unmarshal(patch.Schema, &f.Schema) != nil {
			return nil, refuse(http.StatusBadRequest, "schema is not the schema of a custom metadata field.")
		}
		f.Schema.Type = kind
		return []change{{Field: &f}}, ok(&f)
	})
}

func (e *Emulator) deleteField(r *http.Request) answer {
	return e.withField(r, func(f metadataField) ([]change, answer) {
		return []change{{DropField: f.ID}}, e.empty()
	})
}

func (e *Emulator) withField(r *http.Request, decide func(metadataField) ([]change, answer)) answer {
	id := chi.URLParam(r, "id")
	return e.change(func() ([]change, answer) {
		i := slices.IndexFunc(e.lib.fields, func(f *metadataField) bool { return f.ID == id })
		if i < 0 {
			return nil, refuse(http.StatusNotFound, "No such custom metadata field exists.")
		}
		return decide(*e.lib.fields[i])
	})
}
