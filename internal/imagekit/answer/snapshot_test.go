package answer

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// reader knows tickets by their beginning.
func reader(field string) *Reader {
	return &Reader{TicketField: field, LooksLikeTicket: func(s string) bool { return strings.HasPrefix(s, "tu1.") }, MaxFile: 1 << 20}
}

const id = "6957360537b244ef54d60180"

const sample = `{"type":"file","fileId":"6957360537b244ef54d60180","name":"hero_q1W2e3R4t.jpg","filePath":"/users/42/hero_q1W2e3R4t.jpg","tags":null,"AITags":null,"versionInfo":{"id":"6957360537b244ef54d60180","name":"Version 1"},"embeddedMetadata":null,"isPrivateFile":false,"isPublished":true,"customCoordinates":null,"customMetadata":{},"url":"https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg?updatedAt=1767323045678","thumbnail":"https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg?updatedAt=1767323045678&tr=n-ik_ml_thumbnail","fileType":"image","mime":"image/jpeg","width":1200,"height":800,"size":183422,"hasAlpha":false,"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:05.678Z"}`

func ptr[T any](v T) *T { return &v }

func TestSnapshotOfTheReference(t *testing.T) {
	got, err := reader("").One([]byte(sample), id)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	want := file.Snapshot{
		ID: id, URL: "https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg",
		Name: ptr("hero_q1W2e3R4t.jpg"), Path: ptr("/users/42/hero_q1W2e3R4t.jpg"), Type: ptr("image"), MIME: ptr("image/jpeg"),
		SizeBytes: ptr(int64(183422)), Width: ptr(int32(1200)), Height: ptr(int32(800)),
		ThumbnailURL: ptr("https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg?tr=n-ik_ml_thumbnail"),
		VersionID:    ptr(id), FirstVersion: true, IsPrivate: ptr(false), CreatedAt: at, UpdatedAt: at,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("snapshot %+v\nwant     %+v", got, want)
	}
}

// with is a minimal file with these members added or replaced.
func with(members string) string {
	fields := map[string]json.RawMessage{}
	for _, object := range []string{`{"type":"file","fileId":"f","url":"https://x/y","createdAt":"2026-01-02T03:04:05Z","updatedAt":"2026-01-02T03:04:05Z"}`, "{" + members + "}"} {
		if err := json.Unmarshal([]byte(object), &fields); err != nil {
			panic(object)
		}
	}
	for name, value := range fields {
		if string(value) == `"absent"` {
			delete(fields, name)
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func TestSnapshotFields(t *testing.T) {
	c := reader("owner_ticket")
	tests := []struct {
		name, members string
		pick          func(s file.Snapshot) any
		want          any
	}{
		{"UnknownFieldsAreIgnored", `"new":{"a":[1]},"AITags":"odd"`, func(s file.Snapshot) any { return s.Name }, (*string)(nil)},
		{"SizeAsFloat", `"size":1.83422e5`, func(s file.Snapshot) any { return *s.SizeBytes }, int64(183422)},
		{"SizeZero", `"size":0`, func(s file.Snapshot) any { return *s.SizeBytes }, int64(0)},
		{"SizeNull", `"size":null`, func(s file.Snapshot) any { return s.SizeBytes }, (*int64)(nil)},
		{"SizeNegative", `"size":-1`, func(s file.Snapshot) any { return s.SizeBytes }, (*int64)(nil)},
		{"SizeBeyondEverything", `"size":1e400`, func(s file.Snapshot) any { return s.SizeBytes }, (*int64)(nil)},
		{"WidthFraction", `"width":12.5`, func(s file.Snapshot) any { return s.Width }, (*int32)(nil)},
		{"WidthBeyondAColumn", `"width":2147483648`, func(s file.Snapshot) any { return s.Width }, (*int32)(nil)},
		{"NamesWithNUL", `"name":"a\u0000b"`, func(s file.Snapshot) any { return *s.Name }, "a\uFFFDb"},
		{"HalfASurrogate", `"name":"a\ud800b"`, func(s file.Snapshot) any { return *s.Name }, "a\uFFFDb"},
		{"URLWithFragment", `"url":"https://x/y#z?q"`, func(s file.Snapshot) any { return s.URL }, "https://x/y"},
		{"ThumbnailBare", `"thumbnail":"https://x/y?updatedAt=1"`, func(s file.Snapshot) any { return *s.ThumbnailURL }, "https://x/y"},
		{"ThumbnailSigned", `"thumbnail":"https://x/y?ik-t=1&tr=a&ik-s=2"`, func(s file.Snapshot) any { return *s.ThumbnailURL }, "https://x/y?tr=a"},
		{"ThumbnailEmpty", `"thumbnail":""`, func(s file.Snapshot) any { return s.ThumbnailURL }, (*string)(nil)},
		{"TagsNone", `"tags":[]`, func(s file.Snapshot) any { return s.Tags }, []string(nil)},
		{"TagsWithNull", `"tags":["a",null,"b\u0000"]`, func(s file.Snapshot) any { return s.Tags }, []string{"a", "b\uFFFD"}},
		{"TagsWithTickets", `"tags":["tu1.x","a","tu1.y","tu1.x"]`, func(s file.Snapshot) any { return [][]string{s.Tags, s.Tickets} }, [][]string{{"a"}, {"tu1.x", "tu1.y"}}},
		{"TicketAlone", `"tags":["tu1.x"]`, func(s file.Snapshot) any { return [][]string{s.Tags, s.Tickets} }, [][]string{nil, {"tu1.x"}}},
		{"TicketField", `"customMetadata":{"owner_ticket":"tu1.z","k":1}`, func(s file.Snapshot) any { return []any{string(s.CustomMetadata), s.Tickets} }, []any{`{"k":1}`, []string{"tu1.z"}}},
		{"TicketFieldAlone", `"customMetadata":{"owner_ticket":"tu1.z"},"tags":["tu1.z"]`, func(s file.Snapshot) any { return []any{s.CustomMetadata, s.Tickets} }, []any{json.RawMessage(nil), []string{"tu1.z"}}},
		{"TicketFieldOfAnotherType", `"customMetadata":{"owner_ticket":[7]}`, func(s file.Snapshot) any { return []any{s.CustomMetadata, s.Tickets} }, []any{json.RawMessage(nil), []string(nil)}},
		{"MetadataNull", `"customMetadata":null`, func(s file.Snapshot) any { return s.CustomMetadata }, json.RawMessage(nil)},
		{"MetadataIsWrittenAnew", `"customMetadata":{"b":"<\u0000>","a\u0000":["\ud800",{"n":1.50}],"big":1e999,"small":1e-999,"long":12345678901234567890}`,
			func(s file.Snapshot) any { return string(s.CustomMetadata) },
			"{\"a\uFFFD\":[\"\uFFFD\",{\"n\":1.50}],\"b\":\"<\uFFFD>\",\"big\":\"1e999\",\"long\":12345678901234567890,\"small\":0}"},
		{"FirstVersionByID", `"versionInfo":{"id":"f","name":"whatever"}`, func(s file.Snapshot) any { return s.FirstVersion }, true},
		{"FirstVersionByName", `"versionInfo":{"id":"g","name":"Version 1"}`, func(s file.Snapshot) any { return s.FirstVersion }, true},
		{"LaterVersion", `"versionInfo":{"id":"g","name":"Version 10"}`, func(s file.Snapshot) any { return s.FirstVersion }, false},
		{"NoVersion", `"versionInfo":null`, func(s file.Snapshot) any { return s.FirstVersion }, false},
		{"TimesToTheMicrosecond", `"updatedAt":"2026-01-02T05:04:05.1234567+02:00"`, func(s file.Snapshot) any { return s.UpdatedAt },
			time.Date(2026, 1, 2, 3, 4, 5, 123456000, time.UTC)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := c.One([]byte(with(tt.members)), "f")
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.pick(s); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
		})
	}
}

func TestSnapshotsThatAreNotBelieved(t *testing.T) {
	c := reader("")
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	for _, members := range []string{
		`"type":"absent"`, `"type":"file-version"`, `"type":"folder"`, `"type":null`, `"type":1`,
		`"fileId":"absent"`, `"fileId":null`, `"fileId":7`, `"fileId":""`, `"fileId":"g"`, `"fileId":"f/../g"`,
		`"url":"absent"`, `"url":null`, `"url":"?x"`, `"url":{}`,
		`"createdAt":"absent"`, `"createdAt":null`, `"createdAt":1767323045678`, `"createdAt":"yesterday"`, `"createdAt":"0001-01-01T00:00:00Z"`,
		`"updatedAt":"absent"`, `"updatedAt":null`, `"updatedAt":""`, `"updatedAt":"2026-13-01T00:00:00Z"`, `"updatedAt":"9999-12-31T23:59:59-01:00"`,
		`"name":7`, `"tags":"a,b"`, `"tags":[1]`, `"tags":{}`, `"size":"12"`, `"size":true`, `"size":{}`, `"width":[]`,
		`"isPrivateFile":"no"`, `"versionInfo":"1"`, `"versionInfo":{"id":1}`, `"customMetadata":[]`, `"customMetadata":"x"`, `"customMetadata":` + deep,
		`"mime":["image/png"]`, `"fileType":0`, `"thumbnail":1`,
	} {
		if s, err := c.One([]byte(with(members)), "f"); err == nil {
			t.Errorf("%s was believed: %+v", members, s)
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
