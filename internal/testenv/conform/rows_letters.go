package conform

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

func letterCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Letters_AreFilteredAndCounted":            (*rows).letters,
		"Replay_IsTakenConfirmedAndResolved":       (*rows).replays,
		"Replay_ThatDiesLengthensTheHistory":       (*rows).replayDies,
		"Replay_IsSomebodyElsesUntilItIsLost":      (*rows).replayLost,
		"Replay_ACancelledJobHandsOverWhatItTook":  (*rows).replayCancelled,
		"Replay_ClaimsByTheFirstEvent":             (*rows).replayClaims,
		"Discard_MarksAndTells":                    (*rows).discards,
		"Recheck_AsksForFiles":                     (*rows).rechecks,
		"Import_BringsAnExportOnce":                (*rows).imports,
		"Export_HandsOverWhatWasThere":             (*rows).exports,
		"Report_OfALetterIsPendingUntilItIsJudged": (*rows).reportOfLetter,
	}
}

// parked makes a dead letter of each event and returns their ids.
func (r *rows) parked(all ...event.Pending) []string {
	r.Helper()
	var ids []string
	for _, p := range all {
		r.settled([]event.Pending{p}, nil, dead())
		for _, d := range r.passport(p.FileID).DeadLetters {
			if d.EventID == p.ID {
				ids = append(ids, d.ID)
			}
		}
	}
	if len(ids) != len(all) {
		r.Fatalf("%d letters of %d events", len(ids), len(all))
	}
	return ids
}

func (r *rows) letter(id string) event.DeadLetter {
	r.Helper()
	d, err := r.door.DeadLetter(r.Context(), id)
	r.must(err)
	return d
}

func (r *rows) job(j event.Job) event.Job {
	r.Helper()
	j.Who = "op"
	out, err := r.door.StartJob(r.Context(), j)
	r.must(err)
	return out
}

func (r *rows) jobNow(id string) event.Job {
	r.Helper()
	out, err := r.door.Job(r.Context(), id)
	r.must(err)
	return out
}

func (r *rows) letters() {
	ids := r.parked(r.report("f", "ann"), r.webhook("g"), r.deleted("f"))
	r.settled([]event.Pending{r.webhook("h")}, nil, always(event.End{Kind: event.Dead, Reason: "poison", Class: event.ClassTrueup}))
	of := func(f event.Filter) int {
		all, err := r.door.DeadLetters(r.Context(), f, "", 10)
		r.must(err)
		return len(all)
	}
	first := r.letter(ids[0])
	r.same("filtered", []int{of(event.Filter{}), of(event.Filter{FileID: "f"}), of(event.Filter{Reason: "poison"}), of(event.Filter{Class: event.ClassImageKit}),
		of(event.Filter{Source: event.Client}), of(event.Filter{IDs: ids[:2]}), of(event.Filter{State: event.LetterResolved}), of(event.Filter{State: event.LetterDead}),
		of(event.Filter{Since: first.CreatedAt}), of(event.Filter{Until: first.CreatedAt}), of(event.Filter{Import: "i"})}, []int{4, 2, 1, 3, 1, 2, 0, 4, 4, 0, 0})
	two, err := r.door.DeadLetters(r.Context(), event.Filter{}, ids[0], 2)
	r.must(err)
	r.same("paged", []string{two[0].ID, two[1].ID}, ids[1:])
	n, err := r.door.CountDead(r.Context(), event.Filter{})
	r.must(err)
	r.same("counted", n, event.DeadCount{Total: 4, Classes: map[event.Class]int64{event.ClassImageKit: 3, event.ClassTrueup: 1}, Reasons: map[string]int64{"gave_up": 3, "poison": 1}})
	_, err = r.door.CountDead(r.Context(), event.Filter{IDs: []string{ids[0], "none"}})
	r.fails(err, event.ErrUnknown)
	status, err := r.door.Status(r.Context())
	r.must(err)
	r.same("status", []any{status.Dead, status.Turn}, []any{map[string]int64{"imagekit": 3, "trueup": 1}, r.turn})
}

func (r *rows) replays() {
	p := r.report("f", "ann")
	p.UpdatedAt, p.WebhookID = made(), "w"
	ids := r.parked(p, r.webhook("g"))
	j := r.job(event.Job{Verb: event.JobReplay, Key: "k", Note: "again"})
	r.same("job", []any{j.State, j.Total, j.Done, j.Outcomes == nil}, []any{event.JobRunning, 2, 0, true})
	same := r.job(event.Job{Verb: event.JobReplay, Key: "k", Note: "again"})
	r.same("the same key", same.ID, j.ID)
	_, err := r.door.StartJob(r.Context(), event.Job{Verb: event.JobReplay, Who: "op", Key: "k", Filter: event.Filter{FileID: "f"}})
	r.fails(err, store.ErrKeyReused)
	r.same("open", r.openJobs(), []string{j.ID})

	first := r.replayed(j, 1)
	r.same("event", []any{len(first), first[0].Source, first[0].Origin, first[0].FileID, first[0].User, first[0].AcceptedAt, first[0].DeadLetter, string(first[0].Body), first[0].UpdatedAt, first[0].WebhookID},
		[]any{1, event.Replay, event.Client, "f", "ann", p.AcceptedAt, ids[0], string(p.Body), made(), "w"})
	r.same("letter", []any{r.letter(ids[0]).State, r.letter(ids[0]).ReplayEvent}, []any{event.LetterReplaying, first[0].ID})
	r.same("the same again", r.replayed(j, 5)[0].ID, first[0].ID)
	r.outstanding(j, 1)
	r.must(r.door.ConfirmReplays(r.Context(), r.turn, j.ID, []string{first[0].ID}))
	r.must(r.door.ConfirmReplays(r.Context(), r.turn, j.ID, []string{first[0].ID}))
	r.same("done", r.jobNow(j.ID).Done, 1)
	r.must(r.door.SetJobWaiting(r.Context(), j.ID, "for room"))
	r.same("waiting", r.jobNow(j.ID).Waiting, "for room")
	second := r.replayed(j, 5)
	r.same("second", []any{len(second), second[0].DeadLetter, r.jobNow(j.ID).Waiting}, []any{1, ids[1], ""})
	// Published and settled before anybody could say so.
	r.see(event.Pending{Event: second[0]}, r.look("g", snapshot("g", 0)), file.Applied, file.ReasonAdded)
	r.same("nothing left", len(r.replayed(j, 5)), 0)
	r.see(event.Pending{Event: first[0]}, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.holds("f=ann", "g=")
	r.outstanding(j, 0)
	r.must(r.door.FinishJob(r.Context(), r.turn, j.ID, event.JobDone, ""))
	j = r.jobNow(j.ID)
	r.same("finished", []any{j.State, j.Done, j.Skipped, j.Outcomes, j.FinishedAt.IsZero()}, []any{event.JobDone, 2, 0, map[string]int64{"resolved": 2}, false})
	d := r.letter(ids[0])
	r.same("resolved", []any{d.State, strings.Count(string(d.History), `"event"`), strings.Contains(string(d.History), first[0].ID)}, []any{event.LetterResolved, 1, true})
	r.same("nothing to replay", r.job(event.Job{Verb: event.JobReplay}).State, event.JobDone)
	r.same("unless named", r.job(event.Job{Verb: event.JobReplay, Filter: event.Filter{IDs: ids[:1]}}).Total, 1)
	all, err := r.door.Jobs(r.Context(), "", 2)
	r.must(err)
	r.same("youngest first", []any{len(all), all[0].Total, all[1].Total}, []any{2, 1, 0})
}

func (r *rows) openJobs() []string {
	r.Helper()
	all, err := r.door.OpenJobs(r.Context())
	r.must(err)
	var out []string
	for _, j := range all {
		out = append(out, j.ID)
	}
	return out
}

func (r *rows) replayed(j event.Job, limit int) []event.Event {
	r.Helper()
	out, err := r.door.TakeReplays(r.Context(), r.turn, j.ID, limit)
	r.must(err)
	return out
}

func (r *rows) outstanding(j event.Job, want int) {
	r.Helper()
	n, err := r.door.Outstanding(r.Context(), j.ID)
	r.must(err)
	r.same("outstanding", n, want)
}

func (r *rows) replayDies() {
	ids := r.parked(r.report("f", "ann"))
	for n := range 2 {
		j := r.job(event.Job{Verb: event.JobReplay})
		p := event.Pending{Event: r.replayed(j, 1)[0]}
		r.settled([]event.Pending{p}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Millisecond}))
		r.same("waits", r.letter(ids[0]).State, event.LetterReplaying)
		p = r.due(1)[0]
		r.same("of its letter", p.DeadLetter, ids[0])
		r.settled([]event.Pending{p}, nil, always(event.End{Kind: event.Dead, Reason: fmt.Sprint("reason", n), Class: event.ClassCaller, Note: "again",
			Attempt: &event.Attempt{At: made(), Class: event.ClassCaller, Reason: "again", Version: "test"}}))
		d := r.letter(ids[0])
		r.same("dead again", []any{d.State, d.Class, d.Reason, d.Note, len(d.Attempts), strings.Count(string(d.History), `"event"`), d.ReplayEvent},
			[]any{event.LetterDead, event.ClassCaller, fmt.Sprint("reason", n), "again", n + 2, n + 1, p.ID})
		got := r.jobNow(j.ID)
		r.same("job", []any{got.Outcomes, got.Reasons}, []any{map[string]int64{"dead": 1}, map[string]int64{fmt.Sprint("reason", n): 1}})
	}
	all, err := r.door.DeadLetters(r.Context(), event.Filter{}, "", 10)
	r.must(err)
	r.same("one letter", len(all), 1)
}

func (r *rows) replayLost() {
	ids := r.parked(r.webhook("f"))
	first := r.job(event.Job{Verb: event.JobReplay})
	e := r.replayed(first, 1)[0]
	r.must(r.door.ConfirmReplays(r.Context(), r.turn, first.ID, []string{e.ID}))
	second := r.job(event.Job{Verb: event.JobReplay})
	r.same("counted", second.Total, 1)
	r.same("somebody else's", len(r.replayed(second, 1)), 0)
	r.reopened(store.Config{ReplayLost: time.Millisecond})
	r.Pass(2 * time.Millisecond)
	again := r.replayed(second, 1)
	r.same("lost: the same event", []any{len(again), again[0].ID, again[0].DeadLetter}, []any{1, e.ID, ids[0]})
	r.must(r.door.ConfirmReplays(r.Context(), r.turn, second.ID, []string{e.ID}))
	r.settled([]event.Pending{{Event: e}}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	r.Pass(2 * time.Millisecond)
	r.same("it waits", len(r.replayed(r.job(event.Job{Verb: event.JobReplay}), 1)), 0)
	e2 := event.Pending{Event: e, Retried: true}
	r.settled([]event.Pending{e2}, nil, always(event.End{Kind: event.Done}))
	r.same("both jobs", []any{r.jobNow(first.ID).Outcomes, r.jobNow(second.ID).Outcomes}, []any{map[string]int64{"resolved": 1}, map[string]int64{"resolved": 1}})
}

func (r *rows) replayCancelled() {
	r.parked(r.webhook("f"), r.webhook("g"))
	j := r.job(event.Job{Verb: event.JobReplay})
	e := r.replayed(j, 1)[0]
	got, err := r.door.CancelJob(r.Context(), j.ID, store.Act{Who: "op"})
	r.must(err)
	r.same("cancelled", got.State, event.JobCancelled)
	r.same("still open", r.openJobs(), []string{j.ID})
	r.same("what it took", r.replayed(j, 5)[0].ID, e.ID)
	r.must(r.door.ConfirmReplays(r.Context(), r.turn, j.ID, []string{e.ID}))
	r.same("and nothing more", []any{len(r.replayed(j, 5)), r.openJobs()}, []any{0, []string(nil)})
	r.must(r.door.FinishJob(r.Context(), r.turn, j.ID, event.JobDone, ""))
	r.same("stays cancelled", r.jobNow(j.ID).State, event.JobCancelled)
	_, err = r.door.CancelJob(r.Context(), "none", store.Act{Who: "op"})
	r.fails(err, event.ErrUnknown)
	_, err = r.door.TakeReplays(r.Context(), r.turn, "none", 1)
	r.fails(err, event.ErrUnknown)
}

// The claim of a replay is that of the event it replays: its id decides a tie.
func (r *rows) replayClaims() {
	first := r.report("f", "ann")
	r.parked(first)
	tie := r.report("f", "bob") // a later id, the same moment
	r.see(tie, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.holds("f=bob")
	e := r.replayed(r.job(event.Job{Verb: event.JobReplay}), 1)[0]
	r.see(event.Pending{Event: e}, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonOwner)
	r.holds("f=ann")
	r.same("evidence", r.passport("f").State.OwnerEvent, first.ID)
}

func (r *rows) discards() {
	ids := r.parked(r.webhook("f"), r.webhook("f"), r.webhook("g"))
	j := r.job(event.Job{Verb: event.JobDiscard, Filter: event.Filter{FileID: "f"}, Note: "spam"})
	r.same("counted", j.Total, 2)
	n, done, err := r.door.DiscardSlice(r.Context(), r.turn, j.ID, 1)
	r.must(err)
	r.same("first", []any{n, done}, []any{1, false})
	n, done, err = r.door.DiscardSlice(r.Context(), r.turn, j.ID, 5)
	r.must(err)
	r.same("second", []any{n, done}, []any{1, true})
	r.same("states", []any{r.letter(ids[0]).State, r.letter(ids[1]).State, r.letter(ids[2]).State}, []any{event.LetterDiscarded, event.LetterDiscarded, event.LetterDead})
	r.same("ledger", slices.Contains(r.story("f"), "discard/discarded//gave_up"), true)
	r.must(r.door.FinishJob(r.Context(), r.turn, j.ID, event.JobDone, ""))
	r.same("done", []any{r.jobNow(j.ID).Done, r.jobNow(j.ID).Skipped}, []any{2, 0})
	for _, bad := range []event.Job{{Verb: "other"}, {Verb: event.JobRecheck}, {Verb: event.JobReplay, Files: []string{"f"}}, {Verb: event.JobRecheck, Files: []string{"../f"}}} {
		if _, err := r.door.StartJob(r.Context(), bad); err == nil {
			r.Errorf("started %+v", bad)
		}
	}
}

func (r *rows) rechecks() {
	j := r.job(event.Job{Verb: event.JobRecheck, Files: []string{"g", "f", "g"}})
	r.same("counted", []any{j.Total, j.Files, j.Outcomes}, []any{2, []string{"f", "g"}, map[string]int64{"pending": 2}})
	take := func(limit int) []event.Event {
		out, err := r.door.TakeRechecks(r.Context(), r.turn, j.ID, limit)
		r.must(err)
		return out
	}
	e := take(1)[0]
	r.same("event", []any{e.FileID, e.Source, e.Origin, e.Kind, e.AcceptedAt.IsZero()}, []any{"f", event.Replay, event.Reconcile, event.KindRecheck, false})
	r.outstanding(j, 0)
	r.same("the same", take(1)[0].ID, e.ID)
	r.must(r.door.ConfirmRechecks(r.Context(), r.turn, j.ID, []string{e.ID}))
	r.outstanding(j, 1)
	r.same("the other", take(5)[0].FileID, "g")
	r.see(event.Pending{Event: e}, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.same("outcomes", r.jobNow(j.ID).Outcomes, map[string]int64{"pending": 1, "done": 1})
	got := r.passport("f")
	r.same("passport", []any{len(got.Jobs), got.Jobs[0].JobID, got.Jobs[0].End, got.Jobs[0].Event}, []any{1, j.ID, event.Done, e.ID})
}

func seq(all ...event.DeadLetter) iter.Seq2[event.DeadLetter, error] {
	return func(yield func(event.DeadLetter, error) bool) {
		for _, d := range all {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (r *rows) imports() {
	ids := r.parked(r.report("f", "ann"))
	here := r.letter(ids[0])
	now := time.Now().UTC().Truncate(time.Microsecond)
	there := event.DeadLetter{ID: "01A", EventID: "01B", FileID: "g", Source: event.Webhook, Origin: event.Webhook, Kind: "file.created", AcceptedAt: now, CreatedAt: now,
		Class: event.ClassImageKit, Reason: "gave_up", State: event.LetterReplaying, ReplayEvent: "01C", Body: []byte{0, 255}, Headers: map[string]string{"a": "b"},
		History: []byte(`[{"event": "01X"}]`), Attempts: []event.Attempt{{Reason: "x"}}, Masked: []event.Span{{From: 1, To: 2}}}
	other := there
	other.ID, other.EventID = "01D", here.EventID // another letter of an event that has one here
	act := store.Act{Who: "op", Key: "k"}
	inserted, known, err := r.door.Import(r.Context(), "imp", seq(here, there, there, other), act)
	r.must(err)
	r.same("imported", []int{inserted, known}, []int{1, 3})
	got := r.letter("01A")
	r.same("letter", []any{got.State, got.ReplayEvent, string(got.Body), got.Headers, got.CreatedAt, len(got.Attempts), got.Masked, strings.Contains(string(got.History), "01X")},
		[]any{event.LetterDead, "", "\x00\xff", there.Headers, now, 1, there.Masked, true})
	n, err := r.door.CountDead(r.Context(), event.Filter{Import: "imp"})
	r.must(err)
	r.same("selected", n.Total, 2)
	inserted, known, err = r.door.Import(r.Context(), "imp", seq(here, there), act)
	r.must(err)
	r.same("the same key", []int{inserted, known}, []int{1, 3})
	old := there
	old.ID, old.EventID, old.AcceptedAt = "01E", "01F", now.Add(-3*365*24*time.Hour)
	late := there
	late.ID, late.EventID = "01G", "01H"
	_, _, err = r.door.Import(r.Context(), "imp2", seq(late, old), store.Act{Who: "op"})
	r.fails(err, store.ErrTooOld)
	_, err = r.door.DeadLetter(r.Context(), "01G")
	r.fails(err, event.ErrUnknown)
	broken := fmt.Errorf("the file is cut")
	_, _, err = r.door.Import(r.Context(), "imp3", func(yield func(event.DeadLetter, error) bool) {
		_ = yield(late, nil) && yield(event.DeadLetter{}, broken)
	}, store.Act{Who: "op"})
	r.fails(err, broken)
	_, err = r.door.DeadLetter(r.Context(), "01G")
	r.fails(err, event.ErrUnknown)
}

func (r *rows) exports() {
	var all []event.Pending
	for i := range 20 {
		all = append(all, r.webhook(fmt.Sprint("f", i)))
	}
	ids := r.parked(all...)
	var got []string
	r.must(r.door.ExportDead(r.Context(), event.Filter{}, func(d event.DeadLetter) error {
		if len(got) == 0 {
			r.parked(r.webhook("late"))
		}
		got = append(got, d.ID)
		if len(d.Body) == 0 {
			r.Errorf("letter %s came without its body", d.ID)
		}
		return nil
	}))
	r.same("handed over", got, ids)
	stop := fmt.Errorf("enough")
	r.fails(r.door.ExportDead(r.Context(), event.Filter{}, func(event.DeadLetter) error { return stop }), stop)
}

func (r *rows) reportOfLetter() {
	p, q := r.report("f", "ann"), r.report("g", "ann")
	r.parked(p, q)
	r.same("pending", r.reported(p, "ann").State, "pending")
	e := r.replayed(r.job(event.Job{Verb: event.JobReplay, Filter: event.Filter{FileID: "f"}}), 1)[0]
	r.same("replaying", r.reported(p, "ann").State, "pending")
	r.see(event.Pending{Event: e}, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.same("verified", r.reported(p, "ann").State, "verified")
	j := r.job(event.Job{Verb: event.JobDiscard})
	_, _, err := r.door.DiscardSlice(r.Context(), r.turn, j.ID, 5)
	r.must(err)
	r.same("discarded", r.reported(q, "ann").State, "rejected")
}

func operatorCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Status_IsWhatStands":                      (*rows).status,
		"CleanUp_ForgetsWhatIsPastItsRetention":    (*rows).cleans,
		"CleanUp_KeepsTheFindingsOfTheYoungestRun": (*rows).cleansRuns,
	}
}

func (r *rows) status() {
	r.fill("f")
	out := r.wait(r.webhook("g"), time.Hour)
	got, err := r.door.Status(r.Context())
	r.must(err)
	r.same("status", []any{got.Turn, got.Paused.Paused, got.Retries.Count, got.Retries.NextDue.Equal(out.NextDue), len(got.Dead), len(got.Expired), got.LiveRows, got.Fuse.Latched, got.Run == nil, got.Account.Doubt},
		[]any{r.turn, false, 1, true, 0, 0, 1, false, true, ""})
	r.same("columns", got.Columns, sortedLines([]string{"file_url", "upload_timestamp", "file_name", "file_path", "file_type", "mime", "size_bytes", "width", "height",
		"thumbnail_url", "tags", "custom_metadata", "version_id", "is_private", "remote_updated_at", "synced_at"}))
	r.must(r.door.Ping(r.Context()))
}

func sortedLines(all []string) []string {
	out := slices.Clone(all)
	slices.Sort(out)
	return out
}

func (r *rows) cleans() {
	r.fill("gone", "stays")
	r.see(r.deleted("gone"), r.absent("gone", "stays"), file.Tombstoned, file.ReasonAnnounced)
	ids := r.parked(r.webhook("letter"), r.webhook("replaying"))
	e := r.replayed(r.job(event.Job{Verb: event.JobReplay, Filter: event.Filter{FileID: "replaying"}}), 1)
	r.see(r.deleted("stays"), r.look("stays", nil), file.Tombstoned, file.ReasonAnnounced)
	r.settled([]event.Pending{r.webhook("stays")}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	r.Pass(3 * time.Millisecond)

	brief := time.Millisecond
	r.reopened(store.Config{Retain: store.Retention{Caller: brief, ImageKit: brief, Database: brief, Trueup: brief, Ledger: brief, Tombstones: brief}})
	r.fill("next") // takes a slice along
	all, err := r.door.DeadLetters(r.Context(), event.Filter{}, "", 10)
	r.must(err)
	r.same("letters: not one that is replaying", []any{len(all), all[0].ID, len(e)}, []any{1, ids[1], 1})
	r.same("tombstones: not of a file that waits", []bool{r.passport("gone").State == nil, r.passport("stays").State == nil}, []bool{true, false})
	r.same("ledger: a letter's own line stays with it", []any{r.story("gone"), r.story("letter"), r.story("replaying")},
		[]any{[]string(nil), []string(nil), []string{"file.created/dead//gave_up"}})
	status, err := r.door.Status(r.Context())
	r.must(err)
	r.same("counted", status.Expired, map[string]int64{"imagekit": 1})
}

func (r *rows) cleansRuns() {
	var runs []run.Run
	for i := range 32 {
		k := r.started(run.Plan, "")
		r.found(k, run.Missing, "f", fmt.Sprint("f", i))
		runs = append(runs, r.finish(k, run.Planned))
	}
	// The end of each run takes a slice along: the findings of the oldest one at most.
	r.same("the oldest", []any{len(r.findings(runs[0], run.FindingFilter{})), r.run(runs[0].ID).Found}, []any{0, runs[31].Found})
	r.same("the youngest", len(r.findings(runs[31], run.FindingFilter{})), 2)
	_, err := r.door.ApplyRun(r.Context(), runs[0].ID, run.Apply{Who: "op"})
	r.fails(err, run.ErrEnded)
}
