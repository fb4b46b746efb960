package service

import (
	"testing"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/ticket"
)

// What the tickets that came back with a file prove.
func TestProve(t *testing.T) {
	keys, err := ticket.NewKeys("0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := ticket.NewKeys("fedcba9876543210fedcba9876543210")
	if err != nil {
		t.Fatal(err)
	}
	seal := func(k *ticket.Keys, user, account string) string {
		sealed, err := k.Seal(user, account)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	ann, bob := seal(keys, "ann", "demo"), seal(keys, "bob", "demo")
	s := &Service{keys: keys, Config: Config{Config: &config.Config{}}}
	s.Ownership.Account = "demo"
	for name, c := range map[string]struct {
		tickets []string
		want    file.Proof
	}{
		"None":              {nil, file.Proof{}},
		"One":               {[]string{ann}, file.Proof{User: "ann"}},
		"OneTwice":          {[]string{ann, ann}, file.Proof{User: "ann"}},
		"TwoUsersConflict":  {[]string{ann, bob}, file.Proof{Conflict: true}},
		"AnotherAccounts":   {[]string{seal(keys, "ann", "other")}, file.Proof{Invalid: true}},
		"ForgedBesideAGood": {[]string{seal(strangers, "eve", "demo"), ann}, file.Proof{User: "ann", Invalid: true}},
		"ForgedAndConflict": {[]string{seal(strangers, "eve", "demo"), ann, bob}, file.Proof{Conflict: true, Invalid: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.prove(&file.Snapshot{Tickets: c.tickets})
			if (got.User != "") != (got.Ticket != "") {
				t.Errorf("a user without a ticket, or the other way round: %+v", got)
			}
			if got.Ticket = ""; got != c.want {
				t.Errorf("prove = %+v, want %+v", got, c.want)
			}
		})
	}
}
