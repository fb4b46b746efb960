package check

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/ticket"
)

// The checker's reading of an envelope and trueup's own are two; the envelopes that must
// be readable for ever are read by both.
func TestReadsTheEnvelopesKeptForEver(t *testing.T) {
	files, err := filepath.Glob("../queue/envelope/testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no envelopes: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var digits strings.Builder
			for l := range strings.Lines(string(text)) {
				l, _, _ = strings.Cut(l, "#")
				digits.WriteString(strings.Join(strings.Fields(l), ""))
			}
			data, err := hex.DecodeString(digits.String())
			if err != nil {
				t.Fatal(err)
			}
			id, events, err := decode(data)
			if err != nil || id == "" || len(events) == 0 {
				t.Fatalf("%q, %d events: %v", id, len(events), err)
			}
			for _, e := range events {
				if len(e.ID) != 26 || e.Source == "" || e.AcceptedAt.Year() < 2020 {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func TestRefusesWhatIsNoEnvelope(t *testing.T) {
	good := encode("envelope", []string{`{"i":"1","s":"client","a":5,"f":"x","w":"y","d":"z"}`, `{"i":"2","s":"webhook","a":6}`}, []string{"body", ""})
	id, events, err := decode(good)
	if err != nil || id != "envelope" || len(events) != 2 || string(events[0].Body) != "body" || events[0].DeadLetter != "z" || events[0].AcceptedAt.UnixMicro() != 5 {
		t.Fatalf("%q %+v %v", id, events, err)
	}
	for i := range good {
		if _, _, err := decode(good[:i]); err == nil {
			t.Errorf("the first %d bytes read", i)
		}
	}
	if _, _, err := decode(append(good, 0)); err == nil {
		t.Error("a byte more reads")
	}
	if _, _, err := decode(append([]byte("tru\x02"), good[4:]...)); err == nil {
		t.Error("another version reads")
	}
}

func TestOpensTicketsAndNamesReports(t *testing.T) {
	o := newOpener(&Settings{Keys: []string{"another-secret-another-secret-another", keptSecret}, Account: keptAccount})
	if got := o.open(keptTicket); got != "user_123" {
		t.Errorf("a ticket that every version opens is %q's", got)
	}
	for i := range keptTicket {
		b := []byte(keptTicket)
		b[i] ^= 1
		if got := o.open(string(b)); got != "" {
			t.Fatalf("opened with character %d changed: %q", i, got)
		}
	}
	if got := newOpener(&Settings{Keys: []string{keptSecret}, Account: "another"}).open(keptTicket); got != "" {
		t.Errorf("opened for another account: %q", got)
	}
	keys, err := ticket.NewKeys(keptSecret)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keys.Seal("somebody else", keptAccount)
	if err != nil || o.open(sealed) != "somebody else" {
		t.Errorf("%q: %v", o.open(sealed), err)
	}
	if got := eventOf(keys.SealReport(ulid(7), "somebody")); got != ulid(7) {
		t.Errorf("the report is about %q", got)
	}
	for _, bad := range []string{"", "rp_", "rp_" + ulid(7), "xx_" + ulid(7) + "_", ulid(7)} {
		if got := eventOf(bad); got != "" {
			t.Errorf("%q is about %q", bad, got)
		}
	}
}
