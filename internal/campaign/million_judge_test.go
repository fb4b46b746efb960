package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
)

// judge holds what the senders were told, the library and the plan against what SQL
// shows. What follows from the plan alone it asks SQL for in streams; the rest is the
// checker's, which holds all of a run at once (some 3 GB for a million events).
type judge struct {
	plan  *plan
	files *catalogue
	told  *told
	moved map[int]history // what befell files while the events were under way
	shelf *shelf
	rig   *rig
	begun time.Time

	counts map[string]int64
	wrong  []string
}

// maxWrong is how many violations are told in words; all are counted.
const maxWrong = 40

func (j *judge) violation(format string, args ...any) {
	j.counts["violations"]++
	if len(j.wrong) < maxWrong {
		j.wrong = append(j.wrong, fmt.Sprintf(format, args...))
	}
}

// judgement is one thing to be found out.
type judgement struct {
	name string
	find func(context.Context) error
}

// judge finds out all of them; the error says that something could not be found out.
func (j *judge) judge(ctx context.Context, what ...judgement) error {
	for _, w := range what {
		if err := w.find(ctx); err != nil {
			return fmt.Errorf("judge %s: %w", w.name, err)
		}
	}
	return nil
}

// each runs a query and hands over its rows.
func (j *judge) each(ctx context.Context, sql string, args []any, scans []any, row func() error) error {
	rows, err := j.rig.db.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, scans, row)
	return err
}

// checker hands the whole run to the checker: I1 as sums, I2 and I3 in every column, I9,
// I11 and I16.
func (j *judge) checker(ctx context.Context) error {
	e, err := j.rig.quietEvidence(ctx, j.shelf)
	if err != nil {
		return err
	}
	e.Acks = append(j.acks(), j.rig.Acks()...)
	j.check(e)
	return nil
}

func (j *judge) check(e *check.Evidence) {
	v := check.Run(e, check.Settled)
	for name, n := range v.Counts {
		j.counts["check_"+name] = n
	}
	for _, w := range v.Violations {
		j.violation("%s", w)
	}
	j.counts["files"], j.counts["rows"] = int64(len(e.Truth)), int64(len(e.Rows))
}

// quietEvidence is all but the acknowledgements that is known of a long run when all is
// quiet. The log of what ImageKit was asked is longer than it keeps, and nobody dumped
// the tables meanwhile: what rests on these is other campaigns' business.
func (r *rig) quietEvidence(ctx context.Context, s *shelf) (*check.Evidence, error) {
	e := &check.Evidence{
		Settings: check.Settings{AbsentConfirm: time.Second, NotFoundGrace: 3 * time.Second, ClaimWindow: 24 * time.Hour, Markers: []string{unverified}},
		Without:  []check.Invariant{check.I5, check.I6, check.I7, check.I8, check.I12, check.I13, check.I14, check.I15},
		Truth:    map[string]json.RawMessage{}, History: []check.Change{}, Hands: []check.Hand{}, Series: []check.Dump{},
	}
	var err error
	if e.Stream, err = collect.Stream(ctx, r.NATSURL(), streamPrefix); err != nil {
		return nil, err
	}
	if e.Dump, err = collect.Database(ctx, r.pg.url()); err != nil {
		return nil, err
	}
	return e, s.pages(ctx, func(page []json.RawMessage) error {
		for _, raw := range page {
			var f struct{ FileID string }
			if err := json.Unmarshal(raw, &f); err != nil {
				return err
			}
			e.Truth[f.FileID] = raw
		}
		return nil
	})
}

// acks spells out what the senders were told.
func (j *judge) acks() []check.Ack {
	acks := make([]check.Ack, 0, j.told.count())
	add := func(b int, a check.Ack) {
		h := j.plan.event(b)
		if h.door == byStream {
			return
		}
		a.Door, a.FileID, a.Genuine, a.Body, a.SentAt = check.Report, j.files.id(h.file), true, j.plan.body(j.files, h), j.begun
		a.User = userName(h.user)
		if h.door == byWebhook {
			a.Door, a.User, a.Kind, a.WebhookID = check.Webhook, "", h.kind, j.plan.webhookID(b)
		}
		acks = append(acks, a)
	}
	for _, r := range j.told.reports {
		add(j.plan.distinctOf(int(r.sent)), check.Ack{Status: http.StatusAccepted, AnsweredAt: ulid.Time(r.event.Time()), ReportID: "rp_" + r.event.String() + "_" + seal})
	}
	for b := range j.plan.distinct {
		if j.plan.event(b).door == byWebhook {
			for range j.told.acked[b] {
				add(b, check.Ack{Status: http.StatusOK, AnsweredAt: j.begun})
			}
		}
		for range j.told.unknown[b] {
			add(b, check.Ack{})
		}
	}
	return acks
}

// seal stands for the last part of a report id, which says nothing to anybody but its
// maker.
const seal = "AAAAAAAAAAAAAAAAAAAAAA"

// reports: every acknowledged report stands in the ledger, under the id that its sender
// was given, with its own file and user (I1).
func (j *judge) reports(ctx context.Context) error {
	acked := slices.Clone(j.told.reports)
	slices.SortFunc(acked, func(a, b ackedReport) int { return a.event.Compare(b.event) })
	for i := 1; i < len(acked); i++ {
		if acked[i].event == acked[i-1].event {
			j.violation("I1 %s: two reports were given this id", acked[i].event)
		}
	}
	next, found := 0, int64(0)
	lost := func(upto func(ulid.ULID) bool) {
		for ; next < len(acked) && upto(acked[next].event); next++ {
			j.violation("I1 %s: an acknowledged report of %s has no end", acked[next].event, j.files.id(j.plan.event(j.plan.distinctOf(int(acked[next].sent))).file))
		}
	}
	var id, file, user string
	var acceptedAt *time.Time
	err := j.each(ctx, `SELECT id, file_id, user_id, accepted_at FROM trueup.ledger WHERE source = 'client' AND end_kind <> '' ORDER BY id`, nil,
		[]any{&id, &file, &user, &acceptedAt}, func() error {
			event, err := ulid.ParseStrict(id)
			if err != nil {
				return fmt.Errorf("ledger line %q: %w", id, err)
			}
			lost(func(e ulid.ULID) bool { return e.Compare(event) < 0 })
			if acceptedAt == nil || acceptedAt.UnixMilli() != int64(event.Time()) {
				j.violation("I1 %s: accepted at %v, and its id says %s", id, acceptedAt, ulid.Time(event.Time()).UTC())
			}
			if next < len(acked) && acked[next].event == event {
				h := j.plan.event(j.plan.distinctOf(int(acked[next].sent)))
				if file != j.files.id(h.file) || user != userName(h.user) {
					j.violation("I1 %s: the ledger has it as a report of %s by %s, it was of %s by %s", id, file, user, j.files.id(h.file), userName(h.user))
				}
				next, found = next+1, found+1
			} else {
				j.counts["unacknowledged_reports_stored"]++
			}
			return nil
		})
	lost(func(ulid.ULID) bool { return true })
	j.counts["acknowledged_reports"], j.counts["acknowledged_reports_found"] = int64(len(acked)), found
	return err
}

// webhooks: of each webhook at least as many copies have come to an end as were
// acknowledged, and no more than were sent (I1).
func (j *judge) webhooks(ctx context.Context) error {
	seen := make([]uint16, j.plan.distinct)
	var id string
	var n int
	err := j.each(ctx, `SELECT detail->>'webhookId', count(*) FROM trueup.ledger WHERE source = 'webhook' AND end_kind <> '' AND detail->>'webhookId' LIKE $1 GROUP BY 1`,
		[]any{fmt.Sprintf("evt-%d-%%", j.plan.seed)}, []any{&id, &n}, func() error {
			number, err := strconv.Atoi(id[len(fmt.Sprintf("evt-%d-", j.plan.seed)):])
			if err != nil || number >= len(seen) {
				return fmt.Errorf("webhook %q is nobody's", id)
			}
			seen[number] = uint16(n)
			return nil
		})
	if err != nil {
		return err
	}
	for b := range j.plan.distinct {
		if j.plan.event(b).door != byWebhook {
			continue
		}
		acked, most := j.told.acked[b], j.told.acked[b]+j.told.unknown[b]
		j.counts["acknowledged_webhooks"] += int64(acked)
		if seen[b] < acked || seen[b] > most {
			j.violation("I1 %s: %d copies came to an end; %d were acknowledged, %d sent", j.plan.webhookID(b), seen[b], acked, most)
		}
	}
	return nil
}

var numberInBody = regexp.MustCompile(`"?n"?[:=](\d+)[,;}]`)

// deadLetters: they are the poison, all of it and nothing else, byte for byte; which is
// which, the bodies say (I9).
func (j *judge) deadLetters(states ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		seen := map[int]uint16{}
		var id, class, reason, state string
		var body []byte
		var attempts int
		err := j.each(ctx, `SELECT id, class, reason, state, body, jsonb_array_length(attempts) FROM trueup.dead_letters`, nil,
			[]any{&id, &class, &reason, &state, &body, &attempts}, func() error {
				j.counts["dead_letters"]++
				j.counts["dead_letters_"+reason]++
				number := -1
				if m := numberInBody.FindSubmatch(body); m != nil {
					number, _ = strconv.Atoi(string(m[1]))
				}
				if number < 0 || number >= j.plan.distinct || !bytes.Equal(body, j.plan.body(j.files, j.plan.event(number))) {
					j.violation("I9 %s: its body is nothing that was sent: %.200q", id, body)
					return nil
				}
				seen[number]++
				want := map[string][2]string{"panic": {"trueup", "panic"}, "spin": {"trueup", "poison"}, "hang": {"trueup", "poison"}, "eat": {"trueup", "poison"}, "junk": {"caller", "undecodable"}}
				plant := j.plan.event(number).plant
				switch {
				case plant == "":
					j.violation("I9 %s: event %d is healthy, and parked for %s (%s)", id, number, reason, class)
				case want[plant] != [2]string{class, reason}:
					j.violation("I9 %s: an event that should %s is parked for %s (%s)", id, plant, reason, class)
				case plant == "junk" && state != "dead", plant != "junk" && !slices.Contains(states, state):
					j.violation("I9 %s: its state is %s, want %v", id, state, states)
				case attempts == 0:
					j.violation("I9 %s: it has no attempt", id)
				}
				return nil
			})
		if err != nil {
			return err
		}
		for _, b := range j.plan.poison {
			acked, most := j.told.acked[b], j.told.acked[b]+j.told.unknown[b]
			j.counts["acknowledged_poison"] += int64(acked)
			if n := seen[b]; n < acked || n > most {
				j.violation("I9: event %d (%s) has %d dead letters; %d copies were acknowledged, %d sent", b, j.plan.event(b).plant, n, acked, most)
			}
		}
		return nil
	}
}

// owners: each file belongs to the earliest of those who reported it, as far as their
// reports were judged; one that was overwritten before belongs to nobody (I4, I11).
func (j *judge) owners(ctx context.Context) error {
	numbers := make(map[string]int, len(j.files.ids))
	for file := range j.files.ids {
		numbers[j.files.id(file)] = file
	}
	var file, owner string
	var claimant *string
	return j.each(ctx, `SELECT f.file_id, f.user_id, c.user_id FROM public.imagekit_files f LEFT JOIN (
			SELECT DISTINCT ON (l.file_id) l.file_id, l.user_id FROM trueup.ledger l
			WHERE l.origin = 'client' AND l.end_kind NOT IN ('', 'dead') ORDER BY l.file_id, l.accepted_at, l.id
		) c USING (file_id)`, nil, []any{&file, &owner, &claimant}, func() error {
		number, planned := numbers[file]
		switch {
		case !planned: // made meanwhile, by the application's server, and reported by nobody
			if owner != "" {
				j.violation("I11 %s: %s owns what nobody reported", file, owner)
			}
			return nil
		case j.plan.historyOf(number) == overwritten:
			if owner != "" {
				j.violation("I11 %s: %s owns a file that was overwritten before anybody reported it", file, owner)
			}
			return nil
		}
		want := ""
		if claimant != nil {
			want = *claimant
		}
		switch {
		case owner == want && owner == "":
			j.counts["unreported_files"]++
		case owner == want:
			j.counts["owned_files"]++
		case owner == "" && j.moved[number] == overwritten: // its first report may have been judged later
			j.counts["overwritten_unowned_files"]++
		default:
			j.violation("I4 %s: %q owns it, the earliest report is of %q", file, owner, want)
		}
		if j.plan.contested(number) && owner != "" {
			j.counts["contested_files"]++
		}
		return nil
	})
}

// sums is I1 as integers: every event that is known has exactly one end.
func (j *judge) sums(ctx context.Context) error {
	var kind string
	var n int64
	stored := int64(0)
	err := j.each(ctx, `SELECT end_kind, count(*) FROM trueup.ledger WHERE end_kind <> '' AND source IN ('client', 'webhook') GROUP BY 1`, nil, []any{&kind, &n}, func() error {
		j.counts["end_"+kind] = n
		stored += n
		return nil
	})
	var retries, dead int64
	err = errors.Join(err, j.rig.db.QueryRow(ctx, `SELECT (SELECT count(*) FROM trueup.retries), (SELECT count(*) FROM trueup.dead_letters)`).Scan(&retries, &dead))
	if err != nil {
		return err
	}
	j.counts["stored"] = stored
	if retries != 0 {
		j.violation("I1: %d events wait although all is quiet", retries)
	}
	if dead != j.counts["end_dead"] {
		j.violation("I1: %d dead letters, and the ledger tells of %d", dead, j.counts["end_dead"])
	}
	if stored < j.told.count() {
		j.violation("I1: %d events were acknowledged, %d are known", j.told.count(), stored)
	}
	return nil
}

// versions are the row versions of both tables, in order of the files, to be compared
// with later ones.
func (j *judge) versions(ctx context.Context) ([]string, error) {
	var all []string
	var one string
	err := j.each(ctx, `SELECT coalesce(s.file_id, f.file_id) || ' ' || coalesce(f.xmin::text, '-') || ' ' || coalesce(s.xmin::text, '-')
		FROM public.imagekit_files f FULL JOIN trueup.file_state s ON s.file_id = f.file_id COLLATE "C" ORDER BY 1`, nil, []any{&one}, func() error {
		all = append(all, one)
		return nil
	})
	return all, err
}
