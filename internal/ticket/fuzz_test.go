package ticket

import (
	"testing"

	"github.com/trueup/trueup/internal/testenv/seed"
)

const keptEvent = "01JZ0000000000000000000000"

// FuzzOpen holds that nothing opens but what was sealed, whatever is handed in.
func FuzzOpen(f *testing.F) {
	k, other := keys(f, newSecret, oldSecret), keys(f, "other-secret-other-secret-other-32")
	for _, line := range seed.Lines(f, "testdata/sealed.txt", 10) {
		f.Add(line, account)
	}
	f.Add(keptTicket, "demo_id\x00")
	f.Add("tu1."+k.all[0].id+".AAAA", account)
	f.Fuzz(func(t *testing.T, s, acc string) {
		got, err := k.Open(s, acc)
		if err == nil && (s != keptTicket || acc != account || got.User != "user_123") {
			t.Fatalf("opened %q for %q: %+v", s, acc, got)
		}
		if err != nil && got != (Ticket{}) {
			t.Fatalf("half a ticket beside %v: %+v", err, got)
		}
		if got, err := other.Open(s, acc); err == nil {
			t.Fatalf("other keys opened %q: %+v", s, got)
		}
		if err == nil && !LooksLikeTicket(s) {
			t.Fatalf("%q opens and looks like none", s)
		}
	})
}

// FuzzOpenReport holds that an id of a report opens for its user alone, and that
// nothing else opens.
func FuzzOpenReport(f *testing.F) {
	k := keys(f, newSecret, oldSecret)
	good, byOld := k.SealReport(keptEvent, "user_123"), keys(f, oldSecret).SealReport(keptEvent, "user_123")
	f.Add(good, "user_123")
	f.Add(byOld, "user_123")
	f.Add(good, "user_12")
	f.Add(good[:len(good)-1], "3")
	for _, line := range seed.Lines(f, "testdata/sealed.txt", 10) {
		f.Add(line, "user_123")
	}
	f.Fuzz(func(t *testing.T, s, user string) {
		id, at, err := k.OpenReport(s, user)
		if err == nil && (s != good && s != byOld || user != "user_123" || id != keptEvent || at.IsZero()) {
			t.Fatalf("%q opened for %q: %s", s, user, id)
		}
		if err != nil && (id != "" || !at.IsZero()) {
			t.Fatalf("half an answer beside %v: %q", err, id)
		}
		if mine := k.SealReport(keptEvent, user); mine == good && user != "user_123" {
			t.Fatalf("%q is given user_123's id", user)
		}
	})
}
