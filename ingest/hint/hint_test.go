package hint

import (
	"strings"
	"testing"
	"time"
)

func TestNotice(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 0, 0, 100e6, time.UTC)
	for name, c := range map[string]struct {
		body string
		want Notice
	}{
		"Full":                {`{"type":"file.updated","id":"e","data":{"fileId":"f","updatedAt":"2026-01-02T04:00:00.100Z"}}`, Notice{"file.updated", "e", "f", at}},
		"TimeOfAnotherZone":   {`{"type":"file.updated","id":"e","data":{"fileId":"f","updatedAt":"2026-01-02T05:00:00.100+01:00"}}`, Notice{"file.updated", "e", "f", at}},
		"TimeThatIsNone":      {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"yesterday"}}`, Notice{Kind: "file.updated", FileID: "f"}},
		"TimeOfNoEra":         {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"0001-01-01T00:00:00Z"}}`, Notice{Kind: "file.updated", FileID: "f"}},
		"TimeBeyondJSON":      {`{"type":"file.updated","data":{"fileId":"f","updatedAt":"9999-12-31T23:59:59-01:00"}}`, Notice{Kind: "file.updated", FileID: "f"}},
		"TimeAsNumber":        {`{"type":"file.updated","data":{"fileId":"f","updatedAt":1767326400100}}`, Notice{Kind: "file.updated", FileID: "f"}},
		"NoType":              {`{"data":{"fileId":"f"}}`, Notice{Kind: KindUnknown, FileID: "f"}},
		"OurOwnKinds":         {`{"type":"report","data":{"fileId":"f"}}`, Notice{Kind: KindUnknown, FileID: "f"}},
		"OurOwnKindsTwo":      {`{"type":"recheck","data":{"fileId":"f"}}`, Notice{Kind: KindUnknown, FileID: "f"}},
		"KindWithLineBreak":   {`{"type":"file.\nupdated","data":{"fileId":"f"}}`, Notice{Kind: KindUnknown, FileID: "f"}},
		"OverlongID":          {`{"type":"x","id":"` + strings.Repeat("i", 129) + `","data":{"fileId":"f"}}`, Notice{Kind: "x", FileID: "f"}},
		"FileIDElsewhere":     {`{"type":"x","fileId":"f","fileObject":{"fileId":"f"}}`, Notice{Kind: "x"}},
		"FileIDInOtherCase":   {`{"type":"x","data":{"FileId":"f"}}`, Notice{Kind: "x"}},
		"FileIDNull":          {`{"type":"x","data":{"fileId":null}}`, Notice{Kind: "x"}},
		"DataNull":            {`{"type":"x","data":null}`, Notice{Kind: "x"}},
		"Null":                {`null`, Notice{Kind: KindUnknown}},
		"Array":               {`[{"data":{"fileId":"f"}}]`, Notice{Kind: KindUnknown}},
		"BracketsInsideTexts": {`{"type":"x","n":"` + strings.Repeat(`[{\"`, 100) + `","data":{"fileId":"f"}}`, Notice{Kind: "x", FileID: "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseNotice([]byte(c.body)); err != nil || got != c.want {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestReportsKeepTheirBytes(t *testing.T) {
	body := "[ {\"fileId\" : \"a\",\"x\":\"caf\\u00e9\"} ,\n{\"fileId\":\"b\"} ]"
	got, array, err := ParseReports([]byte(body))
	if err != nil || !array || len(got) != 2 {
		t.Fatal(got, array, err)
	}
	if string(got[0].Raw) != `{"fileId" : "a","x":"caf\u00e9"}` || string(got[1].Raw) != `{"fileId":"b"}` {
		t.Fatalf("%q, %q", got[0].Raw, got[1].Raw)
	}
}

// TestDeepBodiesCostNothing compares a body of brackets with a flat one of its size.
func TestDeepBodiesCostNothing(t *testing.T) {
	body := []byte(strings.Repeat("[", 1<<20))
	if n := testing.AllocsPerRun(10, func() { _, _ = ParseNotice(body) }); n > 20 {
		t.Fatalf("%v allocations", n)
	}
}
