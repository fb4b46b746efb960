package grant

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/testenv/seed"
	"github.com/trueup/trueup/internal/ticket"
)

// FuzzV2 holds that whatever is asked for, a grant carries one ticket of the asker,
// stays in the asker's folder, overwrites nothing, and signs exactly the fields that
// the client is told to send.
func FuzzV2(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/asks/*.json", 14) {
		f.Add(s.Data)
	}
	byTag, keys := setup(f, func(c *Config) { c.Folder = "/u/{sub}" })
	byField, fieldKeys := setup(f, func(c *Config) { c.TicketField = "owner_ticket" })
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, err := byTag.V2("user_123", body); err == nil {
			signsWhatItSays(t, got)
			if tickets := ticketsIn(t, keys, strings.Split(got.Upload.get("tags"), ",")...); tickets != 1 {
				t.Fatalf("%d tickets in %+v", tickets, got.Upload)
			}
			folder := got.Upload.get("folder")
			if folder != "/u/user_123" && !strings.HasPrefix(folder, "/u/user_123/") || strings.Contains(folder+"/", "/../") {
				t.Fatalf("%+v", got.Upload)
			}
		}
		if got, err := byField.V2("user_123", body); err == nil {
			signsWhatItSays(t, got)
			var metadata map[string]any
			if err := json.Unmarshal([]byte(got.Upload.get("customMetadata")), &metadata); err != nil {
				t.Fatalf("%+v: %v", got.Upload, err)
			}
			sealed, _ := metadata["owner_ticket"].(string)
			if ticketsIn(t, fieldKeys, sealed) != 1 || ticketsIn(t, fieldKeys, strings.Split(got.Upload.get("tags"), ",")...) != 0 {
				t.Fatalf("%+v", got.Upload)
			}
			for name := range metadata {
				if name != "owner_ticket" && strings.EqualFold(name, "owner_ticket") {
					t.Fatalf("two fields for one ticket: %v", metadata)
				}
			}
		}
	})
}

// ticketsIn counts what ImageKit, or we, would take for a ticket; each is the asker's.
func ticketsIn(t *testing.T, keys *ticket.Keys, tags ...string) (n int) {
	for _, tag := range tags {
		if !ticket.LooksLikeTicket(strings.TrimSpace(tag)) {
			continue
		}
		n++
		if opened, err := keys.Open(tag, account); err != nil || opened.User != "user_123" {
			t.Fatalf("%q: %+v, %v", tag, opened, err)
		}
	}
	return n
}

// signsWhatItSays fails unless the token's claims are the fields as the answer's JSON
// has them, as text, and two times at most an hour apart.
func signsWhatItSays(t *testing.T, got V2) {
	claims := claimsOf(t, got.Token)
	iat, _ := claims["iat"].(float64)
	exp, _ := claims["exp"].(float64)
	if int64(iat) != start.Unix() || exp <= iat || exp-iat > MaxLife.Seconds() {
		t.Fatalf("from %v to %v", iat, exp)
	}
	delete(claims, "iat")
	delete(claims, "exp")
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		UploadPayload map[string]any `json:"uploadPayload"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(told.UploadPayload, claims) || len(claims) != len(got.Upload) {
		t.Fatalf("signed %v, told %v", claims, told.UploadPayload)
	}
	if claims["overwriteFile"] != "false" {
		t.Fatalf("may overwrite: %v", claims)
	}
	for name := range claims {
		for _, of := range append(reserved, shaped...) {
			if strings.EqualFold(name, of) && (name != of || of == "file" || of == "token") {
				t.Fatalf("the field %q passes for %q", name, of)
			}
		}
	}
}

// TestV2IsFrugal: what is asked for costs no more memory than its size warrants.
func TestV2IsFrugal(t *testing.T) {
	g, _ := setup(t, func(c *Config) { c.Folder = "/u/{sub}" })
	for _, s := range seed.Files(t, "testdata/asks/*.json", 14) {
		seed.Frugal(t, s.Name, len(s.Data), func() { _, _ = g.V2("user_123", s.Data) })
	}
	for name, args := range seed.Kept(t, "FuzzV2", 10) {
		seed.Frugal(t, name, len(args[0]), func() { _, _ = g.V2("user_123", []byte(args[0])) })
	}
	for name, body := range map[string]string{
		"a large folder":   `{"uploadPayload":{"folder":"` + strings.Repeat("a/", 1<<17) + `"}}`,
		"a large metadata": `{"uploadPayload":{"customMetadata":{"a":[` + strings.Repeat("{},", 1<<15) + `0]}}}`,
		"large tags":       `{"uploadPayload":{"tags":"` + strings.Repeat("a,", 1<<17) + `"}}`,
	} {
		// What is copied from step to step comes to 22 times a body of a quarter megabyte.
		seed.Within(t, name, 50*uint64(len(body)), func() { _, _ = g.V2("user_123", []byte(body)) })
	}
}
