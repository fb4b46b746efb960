package emulator

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestEverySettingIsExplained: the package comment has one line for each setting
// and none for what is not one.
func TestEverySettingIsExplained(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^//\t([a-z].*?)  `).FindAllStringSubmatch(string(doc), -1) {
		group := ""
		for name := range strings.SplitSeq(line[1], ", ") {
			if strings.HasPrefix(name, ".") {
				name = group + name
			}
			group, _, _ = strings.Cut(name, ".")
			explained[name] = true
		}
	}
	delete(explained, "setting")
	for _, name := range settingNames(reflect.TypeFor[Settings](), "") {
		if !explained[name] {
			t.Errorf("%s is not explained", name)
		}
		delete(explained, name)
	}
	for name := range explained {
		t.Errorf("%s is explained and is no setting", name)
	}
}

func settingNames(of reflect.Type, prefix string) (names []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name := prefix + f.Tag.Get("json")
		if f.Type.Kind() == reflect.Struct {
			names = append(names, settingNames(f.Type, name+".")...)
		} else {
			names = append(names, name)
		}
	}
	return names
}
