package ingest

import (
	"strings"
	"testing"
	"time"
)

func TestNotice(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 0, 0, 100e6, time.UTC)
	for name, c := range map[string]struct {
		body string
		want notice
	}{
		"Full":                {`{"type":"file.updated","id":"e","data":{"fileId":"f","updatedAt":"2026-01-02T04:00:00.100Z"}}`, notice{"file.updated", "e", "f", at}},
		"TimeOfAnotherZone":   {`{"type":"file.updated","id":"e","data":{"fileId":"f","updatedAt":"2026-01-02T05:00:00.100+01:00"}}`, notice{"file.updated", "e", "f", at}},
		"TimeThatIsNone":      {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"yesterday"}}`, notice{kind: "file.updated", fileID: "f"}},
		"TimeOfNoEra":         {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"0001-01-01T00:00:00Z"}}`, notice{kind: "file.updated", fileID: "f"}},
		"TimeBeyondJSON":      {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"9999-12-31T23:59:59-01:00"}}`, notice{kind: "file.updated", fileID: "f"}},
		"TimeAsNumber":        {`{"type":"file.updated","data":{"fileId":"f","updatedAt":1767326400100}}`, notice{kind: "file.updated", fileID: "f"}},
		"NoType":              {`{"data":{"fileId":"f"}}`, notice{kind: kindUnknown, fileID: "f"}},
		"OurOwnKinds":         {`{"type":"report","data":{"fileId":"f"}}`, notice{kind: kindUnknown, fileID: "f"}},
		"OurOwnKindsTwo":      {`{"type":"recheck","data":{"fileId":"f"}}`, notice{kind: kindUnknown, fileID: "f"}},
		"KindWithLineBreak":   {`{"type":"file.\nupdated","data":{"fileId":"f"}}`, notice{kind: kindUnknown, fileID: "f"}},
		"OverlongID":          {`{"type":"x","id":"` + strings.Repeat("i", 129) + `","data":{"fileId":"f"}}`, notice{kind: "x", fileID: "f"}},
		"FileIDElsewhere":     {`{"type":"x","fileId":"f","fileObject":{"fileId":"f"}}`, notice{kind: "x"}},
		"FileIDInOtherCase":   {`{"type":"x","data":{"FileId":"f"}}`, notice{kind: "x"}},
		"FileIDNull":          {`{"type":"x","data":{"fileId":null}}`, notice{kind: "x"}},
		"DataNull":            {`{"type":"x","data":null}`, notice{kind: "x"}},
		"Null":                {`null`, notice{kind: kindUnknown}},
		"Array":               {`[{"data":{"fileId":"f"}}]`, notice{kind: kindUnknown}},
		"BracketsInsideTexts": {`{"type":"x","n":"` + strings.Repeat(`[{\"`, 100) + `","data":{"fileId":"f"}}`, notice{kind: "x", fileID: "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseNotice([]byte(c.body)); err != nil || got != c.want {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestReportsKeepTheirBytes(t *testing.T) {
	body := "[ {\"fileId\" : \"a\",\"x\":\"caf\\u00e9\"} ,\n{\"fileId\":\"b\"} ]"
	got, array, err := parseReports([]byte(body))
	if err != nil || !array || len(got) != 2 {
		t.Fatal(got, array, err)
	}
	if string(got[0].raw) != `{"fileId" : "a","x":"caf\u00e9"}` || string(got[1].raw) != `{"fileId":"b"}` {
		t.Fatalf("%q, %q", got[0].raw, got[1].raw)
	}
}
