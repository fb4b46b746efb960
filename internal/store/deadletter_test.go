package store_test

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/store"
)

func (r *rig) letter(id string) event.DeadLetter {
	r.Helper()
	d, err := r.st.DeadLetter(r.ctx, id)
	if err != nil {
		r.Fatal(err)
	}
	return d
}

func (r *rig) export(f event.Filter) []event.DeadLetter {
	r.Helper()
	var out []event.DeadLetter
	if err := r.st.ExportDead(r.ctx, f, func(d event.DeadLetter) error { out = append(out, d); return nil }); err != nil {
		r.Fatal(err)
	}
	return out
}

// each hands letters over, and then err where there is one.
func each(letters []event.DeadLetter, err error) iter.Seq2[event.DeadLetter, error] {
	return func(yield func(event.DeadLetter, error) bool) {
		for _, d := range letters {
			if !yield(d, nil) {
				return
			}
		}
		if err != nil {
			yield(event.DeadLetter{}, err)
		}
	}
}

func (r *rig) load(id string, letters []event.DeadLetter) (inserted, known int) {
	r.Helper()
	inserted, known, err := r.st.Import(r.ctx, id, each(letters, nil), store.Act{Who: "op"})
	if err != nil {
		r.Fatal(err)
	}
	return inserted, known
}

// bodies are what a sender could send, and what a careless store would change.
func bodies() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return map[string][]byte{
		"empty": {}, "every byte": all, "NUL": []byte("a\x00b"), "not UTF-8": {0xff, 0xfe, '{', '}'}, "escapes": []byte(`{"a":"\u0000\\u0000","b":1.50}`),
		"blanks": []byte(" \r\n{ }\t\n"), "large": bytes.Repeat([]byte("0123456789abcde\n"), 1<<16), "backslashes": []byte(`\x41\\x`), "BOM": []byte("\xef\xbb\xbf{}"),
	}
}

func TestI9DeadLettersAreComplete(t *testing.T) {
	here, there := newRig(t), newRig(t)
	for name, body := range bodies() {
		t.Run("KeepsTheBodyByteForByte/"+name, func(t *testing.T) {
			r := here
			p := report("f1", "ann")
			p.Body = body
			// By way of the retries, as most letters come.
			try := event.Attempt{At: base, Class: event.ClassImageKit, Reason: "unavailable", Status: 503, RequestID: "r1", Excerpt: "<html>", Version: "v1"}
			if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, always(event.End{Kind: event.Retry, Reason: "unavailable", After: time.Microsecond, Attempt: &try})); err != nil {
				t.Fatal(err)
			}
			id := r.die(event.End{}, r.due(1)[0])[0]
			whole := r.letter(id)
			job := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{IDs: []string{id}}})
			replay := r.take(job.ID, 1)[0]
			there.load("i", r.export(event.Filter{IDs: []string{id}}))
			moved := there.letter(id)
			for where, got := range map[string][]byte{"the letter": whole.Body, "its replay": replay.Body, "another installation": moved.Body} {
				if !bytes.Equal(got, body) {
					t.Errorf("%s has %d bytes, sent were %d: %.40q", where, len(got), len(body), got)
				}
			}
			if len(whole.Masked) != 0 || len(moved.Attempts) != 1 || moved.Attempts[0] != try {
				t.Errorf("masked %v, attempts %+v", whole.Masked, moved.Attempts)
			}
		})
	}

	t.Run("KeepsEverythingThatWasKnown", func(t *testing.T) {
		r := newRig(t)
		p := webhook("f1")
		p.UpdatedAt, p.WebhookID, p.Headers = base.Add(time.Microsecond), "evt_1", map[string]string{"user-agent": `a "b"`, "x-request-id": "é"}
		p.Attempts = []event.Attempt{{At: base, Class: event.ClassImageKit, Reason: "garbled", Status: 200, RequestID: "r1", Excerpt: "<html>\x00", Version: "v1"}}
		last := event.Attempt{At: base.Add(time.Second), Class: event.ClassTrueup, Reason: "panic", Excerpt: "stack", Version: "v2"}
		id := r.die(event.End{Class: event.ClassTrueup, Reason: "panic", Note: "it broke", Attempt: &last}, p)[0]
		d := r.letter(id)
		if d.EventID != p.ID || d.FileID != "f1" || d.Source != event.Webhook || d.Origin != event.Webhook || d.Kind != p.Kind || !d.AcceptedAt.Equal(p.AcceptedAt) ||
			!d.UpdatedAt.Equal(p.UpdatedAt) || d.WebhookID != "evt_1" || d.Class != event.ClassTrueup || d.Reason != "panic" || d.Note != "it broke" ||
			d.State != event.LetterDead || d.Headers["user-agent"] != `a "b"` || d.Headers["x-request-id"] != "é" || d.CreatedAt.IsZero() {
			t.Errorf("letter %+v", d)
		}
		if len(d.Attempts) != 2 || d.Attempts[0].RequestID != "r1" || d.Attempts[0].Status != 200 || d.Attempts[1] != last {
			t.Errorf("attempts %+v", d.Attempts)
		}
	})

	t.Run("GrowsOneHistoryOverItsReplays", func(t *testing.T) {
		r := newRig(t)
		p := webhook("f1")
		id := r.die(event.End{Attempt: &event.Attempt{At: base, Reason: "one"}, Class: event.ClassImageKit, Reason: "one"}, p)[0]
		var sent []string
		for _, reason := range []string{"two", "three"} {
			job := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{IDs: []string{id}}})
			e := r.take(job.ID, 1)
			r.confirm(job.ID, e)
			sent = append(sent, e[0].ID)
			end := event.End{Kind: event.Dead, Class: event.ClassTrueup, Reason: reason, Attempt: &event.Attempt{At: base, Reason: reason}}
			if _, err := r.st.Settle(r.ctx, r.turn, pendingOf(e), nil, always(end)); err != nil {
				t.Fatal(err)
			}
		}
		d := r.letter(id)
		var reasons []string
		for _, a := range d.Attempts {
			reasons = append(reasons, a.Reason)
		}
		if strings.Join(reasons, " ") != "one two three" || d.Reason != "three" || d.Class != event.ClassTrueup || d.EventID != p.ID || d.ReplayEvent != sent[1] ||
			strings.Count(string(d.History), `"event"`) != 2 || !strings.Contains(string(d.History), sent[0]) {
			t.Errorf("letter %+v, history %s", d, d.History)
		}
		r.want("letters", `SELECT count(*) FROM trueup.dead_letters`, 1)
	})

	t.Run("MasksOurOwnSecretsAndSaysWhere", func(t *testing.T) {
		secret, other := "private_abcdefgh", "whsec_0123456789"
		r := newRig(t, func(c *store.Config) { c.Secrets = [][]byte{[]byte(secret), []byte(other), []byte("short"), nil} })
		p := webhook("f1")
		p.Body = []byte(`{"k":"` + secret + `","n":"short","l":"` + secret + other + `"}`)
		p.Headers = map[string]string{"user-agent": "ua " + other}
		p.Attempts = []event.Attempt{{At: base, Reason: "x", Excerpt: "said " + secret}}
		id := r.die(event.End{Class: event.ClassTrueup, Reason: "x", Note: "note " + secret, Attempt: &event.Attempt{Excerpt: "stack " + other}}, p)[0]
		d := r.letter(id)
		want := `{"k":"****************","n":"short","l":"` + strings.Repeat("*", len(secret+other)) + `"}`
		if string(d.Body) != want || !slices.Equal(d.Masked, []event.Span{{From: 6, To: 22}, {From: 41, To: 73}}) {
			t.Errorf("body %s, masked %v", d.Body, d.Masked)
		}
		for _, s := range []string{secret, other} {
			r.want("secrets in the row", `SELECT count(*) FROM trueup.dead_letters d WHERE position($1 IN to_jsonb(d)::text || encode(body, 'escape')) > 0`, 0, s)
			r.want("secrets in the ledger", `SELECT count(*) FROM trueup.ledger l WHERE position($1 IN to_jsonb(l)::text) > 0`, 0, s)
		}
		if d.Headers["user-agent"] != "ua ****************" || d.Note != "note ****************" || !strings.HasPrefix(d.Attempts[1].Excerpt, "stack *") {
			t.Errorf("letter %+v", d)
		}
	})
}

func TestDeadLettersAreSelected(t *testing.T) {
	r := newRig(t)
	a := r.die(event.End{Class: event.ClassCaller, Reason: "bad"}, report("f1", "ann"), webhook("f2"))
	b := r.die(event.End{Class: event.ClassTrueup, Reason: "panic"}, webhook("f1"))
	c := r.die(event.End{Class: event.ClassTrueup, Reason: "panic"}, webhook("f3"))
	r.exec(`UPDATE trueup.dead_letters SET created_at = created_at + interval '1 hour', source = 'replay', state = 'resolved' WHERE id = $1`, c[0])
	soon := time.Now().Add(30 * time.Minute)
	for name, tt := range map[string]struct {
		f    event.Filter
		want []string
	}{
		"all": {event.Filter{}, []string{a[0], a[1], b[0], c[0]}}, "class": {event.Filter{Class: event.ClassCaller}, a},
		"reason": {event.Filter{Reason: "panic", State: event.LetterDead}, b}, "file": {event.Filter{FileID: "f1"}, []string{a[0], b[0]}},
		"source": {event.Filter{Source: event.Client}, a[:1]}, "source of the replayed": {event.Filter{Source: event.Webhook}, []string{a[1], b[0], c[0]}},
		"since": {event.Filter{Since: soon}, c}, "until": {event.Filter{Until: soon, Class: event.ClassTrueup}, b},
		"ids": {event.Filter{IDs: []string{a[1], c[0]}}, []string{a[1], c[0]}}, "none": {event.Filter{Import: "x"}, nil},
	} {
		got, err := r.st.DeadLetters(r.ctx, tt.f, "", 10)
		if err != nil || !slices.Equal(idsOf(got), tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, idsOf(got), err, tt.want)
		}
		if n, err := r.st.CountDead(r.ctx, tt.f); err != nil || int(n.Total) != len(tt.want) {
			t.Errorf("%s: count %+v, %v", name, n, err)
		}
	}
	page, err := r.st.DeadLetters(r.ctx, event.Filter{}, a[0], 2)
	if err != nil || !slices.Equal(idsOf(page), []string{a[1], b[0]}) || page[0].Body != nil {
		t.Errorf("page %+v, %v", page, err)
	}
	if got := r.export(event.Filter{}); len(got) != 4 || got[0].Body == nil {
		t.Errorf("exported %v", idsOf(got))
	}
	_, err = r.st.DeadLetter(r.ctx, "nobody")
	wantErr(t, err, event.ErrUnknown)
	_, err = r.st.CountDead(r.ctx, event.Filter{IDs: []string{a[0], "nobody"}})
	wantErr(t, err, event.ErrUnknown)
	if !strings.Contains(err.Error(), "nobody") || strings.Contains(err.Error(), a[0]) {
		t.Errorf("it does not name the one: %v", err)
	}
}

func idsOf(letters []event.DeadLetter) []string {
	var out []string
	for _, d := range letters {
		out = append(out, d.ID)
	}
	return out
}

func TestAnExportIsOfTheMomentItBegan(t *testing.T) {
	r := newRig(t)
	var all []event.Pending
	for range 40 {
		all = append(all, webhook("f1"))
	}
	before := r.die(event.End{}, all...)
	seen := 0
	err := r.st.ExportDead(r.ctx, event.Filter{}, func(event.DeadLetter) error {
		if seen++; seen == 3 {
			r.die(event.End{}, webhook("late"))
		}
		return nil
	})
	if err != nil || seen != len(before) {
		t.Errorf("exported %d of %d, %v", seen, len(before), err)
	}
	stop := errors.New("the reader went away")
	err = r.st.ExportDead(r.ctx, event.Filter{}, func(event.DeadLetter) error { return stop })
	wantErr(t, err, stop)
}

func TestImport(t *testing.T) {
	from := newRig(t)
	p := report("f1", "ann")
	from.die(event.End{Attempt: &event.Attempt{At: base, Reason: "x", Version: "v"}, Class: event.ClassImageKit, Reason: "x"}, p, webhook("f2"), webhook("f3"))
	from.take(from.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{FileID: "f2"}}).ID, 1)
	letters := from.export(event.Filter{})

	t.Run("MovesLettersToAnotherInstallationUnderTheirOwners", func(t *testing.T) {
		r := newRig(t)
		if in, known := r.load("i1", letters); in != 3 || known != 0 {
			t.Fatalf("inserted %d, known %d", in, known)
		}
		r.want("states", `SELECT string_agg(state, ' ') FROM trueup.dead_letters`, "dead dead dead")
		job := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{Import: "i1"}})
		events := r.take(job.ID, 10)
		r.settle(pendingOf(events), r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)), r.look("f3", snap("f3", 0)))
		r.wantRows("f1=ann", "f2=", "f3=")
		r.want("owner since", `SELECT owner_at = $1 AND owner_event = $2 FROM trueup.file_state WHERE file_id = 'f1'`, true, p.AcceptedAt, p.ID)
		if in, known := r.load("i2", letters); in != 0 || known != 3 {
			t.Errorf("again: inserted %d, known %d", in, known)
		}
		if again := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{Import: "i2"}}); again.Total != 0 || again.State != event.JobDone {
			t.Errorf("nothing of it is dead, and the job is %+v", again)
		}
		r.want("audit", `SELECT string_agg((filter->>'import') || count || (filter->>'known'), ' ' ORDER BY id) FROM trueup.audit WHERE verb = 'import'`, "i130 i203")
	})
	t.Run("TakesAllOrNothing", func(t *testing.T) {
		r := newRig(t)
		torn := errors.New("line 3 is torn")
		_, _, err := r.st.Import(r.ctx, "i", each(letters[:2], torn), store.Act{Who: "op"})
		wantErr(t, err, torn)
		old := slices.Clone(letters)
		old[2].AcceptedAt = time.Now().Add(-731 * 24 * time.Hour)
		_, _, err = r.st.Import(r.ctx, "i", each(old, nil), store.Act{Who: "op"})
		wantErr(t, err, store.ErrTooOld)
		old[2].AcceptedAt, old[2].Class = base, "nobody"
		_, _, err = r.st.Import(r.ctx, "i", each(old, nil), store.Act{Who: "op"})
		wantErr(t, err, event.ErrUnstorable)
		r.want("letters and acts", `SELECT (SELECT count(*) FROM trueup.dead_letters) + (SELECT count(*) FROM trueup.audit)`, 0)
	})
	t.Run("KnowsAnEventThatDiedHere", func(t *testing.T) {
		r := newRig(t)
		r.die(event.End{}, p)
		if in, known := r.load("i", append(letters, letters[2])); in != 2 || known != 2 {
			t.Errorf("inserted %d, known %d", in, known)
		}
	})
	t.Run("CountsOnceForOneKey", func(t *testing.T) {
		r := newRig(t)
		for range 2 {
			in, known, err := r.st.Import(r.ctx, "i", each(letters, nil), store.Act{Who: "op", Key: "k"})
			if err != nil || in != 3 || known != 0 {
				t.Errorf("inserted %d, known %d, %v", in, known, err)
			}
		}
		r.want("audit", `SELECT count(*) FROM trueup.audit`, 1)
	})
}
