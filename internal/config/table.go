package config

import (
	"reflect"
	"slices"
	"strings"
)

// Variable is one line of the table.
// Its JSON form is what `trueup help config --json` prints.
type Variable struct {
	Name     string `json:"name"`
	Group    string `json:"group"` // the title it stands under
	Default  string `json:"default,omitempty"`
	Dev      string `json:"dev,omitempty"`    // default of dev where it differs
	Secret   bool   `json:"secret,omitempty"` // may also be given as NAME_FILE
	List     bool   `json:"list,omitempty"`   // comma-separated
	Roles    []Role `json:"roles"`            // that use it
	Required []Role `json:"required,omitempty"`
	Doc      string `json:"doc"`

	checks []string
	index  []int // of the field in Config
}

// UsedBy reports whether role reads the variable.
func (v *Variable) UsedBy(role Role) bool { return slices.Contains(v.Roles, role) }

// NeededBy reports whether role does not start without it.
func (v *Variable) NeededBy(role Role) bool { return slices.Contains(v.Required, role) }

// DefaultFor is the default that role has.
func (v *Variable) DefaultFor(role Role) string {
	if role == Dev && v.Dev != "" {
		return v.Dev
	}
	return v.Default
}

// Table is every variable, in the order of the fields of Config.
func Table() []Variable {
	var out []Variable
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		group := t.Field(i)
		title := group.Tag.Get("title")
		if title == "" {
			continue
		}
		for j := range group.Type.NumField() {
			out = append(out, variable(title, group.Type.Field(j), []int{i, j}))
		}
	}
	return out
}

func variable(title string, f reflect.StructField, index []int) Variable {
	name, def, _ := strings.Cut(f.Tag.Get("env"), ",default=")
	roles := roleList(f.Tag.Get("roles"))
	if len(roles) == 0 {
		roles = Roles()
	}
	return Variable{
		Name: name, Group: title, Default: def, Dev: f.Tag.Get("dev"),
		Secret:   isSecret(f.Type),
		List:     f.Type.Kind() == reflect.Slice,
		Roles:    roles,
		Required: roleList(f.Tag.Get("required")),
		Doc:      f.Tag.Get("doc"),
		checks:   strings.Fields(f.Tag.Get("check")),
		index:    index,
	}
}

func isSecret(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[Secret](), reflect.TypeFor[Secrets](), reflect.TypeFor[URL]():
		return true
	}
	return false
}

func roleList(tag string) []Role {
	var out []Role
	for _, word := range strings.Fields(tag) {
		out = append(out, Role(word))
	}
	return out
}
