package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestThePlotIsXMLWithEveryPointInside(t *testing.T) {
	for name, lines := range map[string][]series{
		"TwoLines": {{"a <b>", []point{{10_000, 50}, {100_000, 55}, {1_000_000, 60}}}, {"c", []point{{10_000, 20}, {5_000_000, 0}}}},
		"OnePoint": {{"a", []point{{10_000, 50}}}},
		"Nothing":  {{name: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			drawn := plot("title & more", "files", "µs", lines)
			dec := xml.NewDecoder(bytes.NewReader(drawn))
			circles := 0
			for {
				token, err := dec.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, drawn)
				}
				if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
					circles++
				}
			}
			want := 0
			for _, l := range lines {
				want += len(l.points)
			}
			if circles != want || want > 0 && strings.Contains(string(drawn), "NaN") {
				t.Errorf("%d points drawn of %d\n%s", circles, want, drawn)
			}
		})
	}
}
