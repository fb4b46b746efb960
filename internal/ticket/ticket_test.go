package ticket

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	oldSecret = "old-secret-old-secret-old-secret-32"
	newSecret = "new-secret-new-secret-new-secret-32"
	account   = "demo_id"
)

func keys(t testing.TB, secrets ...string) *Keys {
	t.Helper()
	k, err := NewKeys(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t testing.TB, k *Keys, user string) string {
	t.Helper()
	s, err := k.Seal(user, account)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTicket(t *testing.T) {
	k := keys(t, newSecret)
	t.Run("OpensForItsAccount", func(t *testing.T) {
		got, err := k.Open(sealed(t, k, "user_123"), account)
		if err != nil || got.User != "user_123" || len(got.ID) != 24 {
			t.Fatalf("got %+v, %v", got, err)
		}
	})
	t.Run("IsLegalInATagAndShort", func(t *testing.T) {
		s := sealed(t, k, "auth0|507f1f77bcf86cd799439011")
		if strings.ContainsAny(s, ",% \t\"'") || len(s) > 200 || !LooksLikeTicket(s) {
			t.Fatalf("%d characters: %s", len(s), s)
		}
	})
	t.Run("HidesItsUser", func(t *testing.T) {
		if s := sealed(t, k, "alice@example.com"); strings.Contains(s, "alice") {
			t.Fatal(s)
		}
	})
	t.Run("IsNeverTheSameTwice", func(t *testing.T) {
		a, _ := k.Open(sealed(t, k, "u"), account)
		b, _ := k.Open(sealed(t, k, "u"), account)
		if a.ID == b.ID {
			t.Fatalf("both are %s", a.ID)
		}
	})
	t.Run("OpensAfterRotation", func(t *testing.T) {
		s := sealed(t, keys(t, oldSecret), "u")
		if got, err := keys(t, newSecret, oldSecret).Open(s, account); err != nil || got.User != "u" {
			t.Fatalf("got %+v, %v", got, err)
		}
	})
	t.Run("SealsWithTheNewest", func(t *testing.T) {
		s := sealed(t, keys(t, newSecret, oldSecret), "u")
		if _, err := keys(t, newSecret).Open(s, account); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("NeedsAUser", func(t *testing.T) {
		if _, err := k.Seal("", account); err == nil {
			t.Fatal("sealed for nobody")
		}
	})
}

func TestTicketRefuses(t *testing.T) {
	k := keys(t, newSecret, oldSecret)
	good := sealed(t, k, "user_123")
	for name, c := range map[string]struct {
		s, account string
		want       error
	}{
		"AnotherAccount":   {good, "other_id", ErrForged},
		"ADroppedKey":      {sealed(t, keys(t, strings.Repeat("x", 32)), "u"), account, ErrUnknownKey},
		"AForeignKeyID":    {strings.Replace(good, k.all[0].id, k.all[1].id, 1), account, ErrForged},
		"ACutTicket":       {good[:len(good)-4], account, ErrForged},
		"AnotherVersion":   {strings.Replace(good, "tu1.", "tu2.", 1), account, ErrForged},
		"NoPrefix":         {strings.TrimPrefix(good, version), account, ErrForged},
		"Nothing":          {"", account, ErrForged},
		"AnOverlongTicket": {good + strings.Repeat("A", maxLength), account, ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := k.Open(c.s, c.account); !errors.Is(err, c.want) {
				t.Fatalf("got %+v, %v; want %v", got, err, c.want)
			}
		})
	}
	t.Run("EveryChangedCharacter", func(t *testing.T) {
		for i := range good {
			b := []byte(good)
			b[i] ^= 1
			if got, err := k.Open(string(b), account); err == nil {
				t.Fatalf("opened with character %d changed: %+v", i, got)
			}
		}
	})
}

func TestLooksLikeTicket(t *testing.T) {
	for s, want := range map[string]bool{
		"tu1.": true, "tu1.a.b": true, "tu2.x": true, "tu12.": true,
		"tu": false, "tu1": false, "tu.": false, "tux.1": false, "TU1.x": false, "": false, "summer": false, " tu1.": false,
	} {
		if got := LooksLikeTicket(s); got != want {
			t.Errorf("%q: got %v", s, got)
		}
	}
}

func TestReport(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	event := ulid.MustNew(ulid.Timestamp(at), ulid.DefaultEntropy()).String()
	k := keys(t, newSecret)
	id := k.SealReport(event, "user_123")

	t.Run("OpensForItsUser", func(t *testing.T) {
		got, when, err := k.OpenReport(id, "user_123")
		if err != nil || got != event || !when.Equal(at) {
			t.Fatalf("got %s %s %v", got, when, err)
		}
	})
	t.Run("OpensAfterRotation", func(t *testing.T) {
		if _, _, err := keys(t, oldSecret, newSecret).OpenReport(id, "user_123"); err != nil {
			t.Fatal(err)
		}
	})
	for name, c := range map[string]struct{ id, user string }{
		"AnotherUser":    {id, "user_124"},
		"AnotherKey":     {keys(t, oldSecret).SealReport(event, "user_123"), "user_123"},
		"LowerCase":      {reportPrefix + strings.ToLower(event) + id[len(reportPrefix)+26:], "user_123"},
		"Cut":            {id[:len(id)-1], "user_123"},
		"Longer":         {id + "A", "user_123"},
		"ATicket":        {sealed(t, k, "user_123"), "user_123"},
		"Nothing":        {"", "user_123"},
		"NotBase64":      {id[:len(id)-1] + "!", "user_123"},
		"ShiftedBorder":  {id, "user_12"},
		"PaddingChanged": {id[:len(id)-1] + "_", "user_123"},
	} {
		t.Run("Refuses"+name, func(t *testing.T) {
			if got, _, err := k.OpenReport(c.id, c.user); !errors.Is(err, ErrNoReport) {
				t.Fatalf("got %s, %v", got, err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	t.Run("RefuseNone", func(t *testing.T) {
		if _, err := NewKeys(); err == nil {
			t.Fatal("no error")
		}
	})
	t.Run("RefuseShortWithoutShowingIt", func(t *testing.T) {
		_, err := NewKeys(newSecret, "short-secret")
		if err == nil || strings.Contains(err.Error(), "short-secret") {
			t.Fatal(err)
		}
	})
	t.Run("DeriveIsStableAndUsable", func(t *testing.T) {
		a, _ := Derive("private_x=")
		b, _ := Derive("private_x=")
		c, _ := Derive("private_y=")
		if a != b || a == c || strings.Contains(a, "private") {
			t.Fatal(a, b, c)
		}
		keys(t, a)
	})
}

// keptTicket was sealed for user_123 with newSecret by the first version of this
// package: files carry tickets for years, so every later version must open it.
const keptTicket = "tu1.7003a0bc.q19PQGTZPwd1y3C6zaEto_ZNhU-syp7F2KcyrXGwLaiGLLTF3mLhhO4a91ttEZQG"

func TestOpensATicketOfTheFirstVersion(t *testing.T) {
	got, err := keys(t, newSecret, oldSecret).Open(keptTicket, account)
	if err != nil || got.User != "user_123" {
		t.Fatalf("got %+v, %v", got, err)
	}
}
