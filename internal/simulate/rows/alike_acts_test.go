package rows_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/simulate/rows"
	"github.com/trueup/trueup/internal/store"
)

// acts are the steps beside settling something new.
func (w *walk) acts() map[string]func() {
	return map[string]func(){
		"due": w.due, "due again": w.due, "turn": w.begin, "person": w.person, "person again": w.person, "operate": w.operate, "trials": w.trials,
		"poll": func() { w.repair("", "", 0) }, "read": w.read, "runs": w.startRun, "run": w.inRun, "run again": w.inRun, "run once more": w.inRun,
		"jobs": w.startJob, "job": w.inJob, "job again": w.inJob,
	}
}

// person does one act of somebody with SQL.
func (w *walk) person() {
	id := w.fileID()
	has := slices.Contains(w.mem.acts.FileIDs(), id)
	user, name := w.pick("", "ann", "zoe"), w.pick("p.jpg", "q.jpg")
	switch n := w.IntN(4); {
	case !has:
		w.real.sql(`INSERT INTO public.imagekit_files (file_id, file_url, user_id, upload_timestamp) VALUES ($1, 'u', $2, NULL)`, id, user)
		w.must(w.mem.acts.InsertRow(rows.Row{FileID: id, FileURL: "u", UserID: user}))
	case n == 0:
		w.real.sql(`UPDATE public.imagekit_files SET user_id = $2 WHERE file_id = $1`, id, user)
		w.mem.acts.UpdateRow(id, func(r *rows.Row) { r.UserID = user })
	case n == 1:
		w.real.sql(`UPDATE public.imagekit_files SET file_name = $2, tags = NULL WHERE file_id = $1`, id, name)
		w.mem.acts.UpdateRow(id, func(r *rows.Row) { r.FileName, r.Tags = &name, nil })
	case n == 2:
		w.real.sql(`DELETE FROM public.imagekit_files WHERE file_id = $1`, id)
		w.mem.acts.DeleteRow(id)
	}
}

func (w *walk) operate() {
	act := store.Act{Who: "op", Note: "n", Key: w.pick("", "k1", "k2", "k3")}
	id, user, pause := w.fileID(), w.user(), w.IntN(3) == 0
	if w.IntN(2) == 0 {
		w.both("assign", func(s *side, _ int) (any, error) { return nil, s.Assign(w.Context(), id, user, act) })
		return
	}
	w.both("pause", func(s *side, _ int) (any, error) {
		p, err := s.SetPaused(w.Context(), pause, act)
		p.At = p.At.Truncate(1 << 62)
		return p, err
	})
	act.Key = fmt.Sprint("resume", w.step)
	w.settleNew()
	w.both("resume", func(s *side, _ int) (any, error) { return s.SetPaused(w.Context(), false, act) })
}

func (w *walk) trials() {
	if len(w.events) == 0 {
		return
	}
	var some []event.Pending
	for range 1 + w.IntN(3) {
		p := w.events[w.IntN(len(w.events))]
		p.Retried = w.IntN(2) == 0
		some = append(some, p)
	}
	ids := make([]string, len(some))
	for i := range some {
		ids[i] = some[i].ID
	}
	old := w.IntN(6) == 0
	switch w.IntN(4) {
	case 2:
		w.both("acquit", func(s *side, _ int) (any, error) { return nil, s.Acquit(w.Context(), turnOf(s, old), ids) })
	case 0:
		w.both("mark", func(s *side, _ int) (any, error) { return s.Mark(w.Context(), turnOf(s, old), ids) })
	case 1:
		w.both("blame", func(s *side, _ int) (any, error) { return nil, s.Blame(w.Context(), turnOf(s, old), ids, "stack") })
	}
	w.both("trials", func(s *side, _ int) (any, error) { return s.Trials(w.Context(), some) })
}

func turnOf(s *side, old bool) int64 {
	if old {
		return s.turn - 1
	}
	return s.turn
}

// repair offers hits; without a run as a poll does.
func (w *walk) repair(real, mem string, fence int64) {
	var hits [2][]file.Observation
	for _, id := range []string{"f1", "f2", "f3", "f4", "f5", "f6"} {
		if w.IntN(3) > 0 {
			continue
		}
		if o := w.observe(id); o[0].Present() {
			o[0].How, o[1].How = file.Hit, file.Hit
			hits[0], hits[1] = append(hits[0], o[0]), append(hits[1], o[1])
		}
	}
	w.both("repair", func(s *side, i int) (any, error) {
		return s.Repair(w.Context(), s.turn, []string{real, mem}[i], fence, hits[i])
	})
}

// read asks what changes nothing.
func (w *walk) read() {
	id, user, ev, snap := w.fileID(), w.user(), "none", w.snapshot("f1")
	if len(w.events) > 0 {
		ev = w.events[w.IntN(len(w.events))].ID
	}
	f := event.Filter{Reason: w.pick("", "poison"), State: event.LetterState(w.pick("", "dead", "resolved")), FileID: w.pick("", id)}
	for what, call := range map[string]func(s *side) (any, error){
		"local": func(s *side) (any, error) {
			var out []run.Local
			err := s.Local(w.Context(), "", 10, func(l run.Local) error { out = append(out, l); return nil })
			return out, err
		},
		"fuse": func(s *side) (any, error) {
			latched, today, live, err := s.Fuse(w.Context())
			return []any{latched, today, live}, err
		},
		"account": func(s *side) (any, error) { a, d, err := s.Account(w.Context()); return []any{a, d}, err },
		"live files": func(s *side) (any, error) {
			out, err := s.LiveFiles(w.Context(), 100, []string{id})
			slices.Sort(out)
			return out, err
		},
		"known files": func(s *side) (any, error) {
			out, err := s.KnownFiles(w.Context(), 100)
			slices.SortFunc(out, func(a, b run.KnownFile) int { return strings.Compare(a.FileID, b.FileID) })
			return out, err
		},
		"report":      func(s *side) (any, error) { return s.Report(w.Context(), ev, user) },
		"count dead":  func(s *side) (any, error) { return s.CountDead(w.Context(), f) },
		"letters":     func(s *side) (any, error) { return s.DeadLetters(w.Context(), f, "", 100) },
		"differences": func(s *side) (any, error) { return s.Differences(w.Context(), []*file.Snapshot{snap}) },
		"status": func(s *side) (any, error) {
			out, err := s.Status(w.Context())
			return []any{out.Turn, out.Paused.Paused, out.Retries.Count, out.Dead, out.LiveRows, out.Fuse.Latched, out.Fuse.Why, out.Fuse.Candidates, out.Account.Doubt, out.Run}, err
		},
		"passport": func(s *side) (any, error) {
			p, err := s.Passport(w.Context(), id)
			slices.SortFunc(p.Lines, func(a, b store.Line) int {
				return cmp.Or(strings.Compare(w.plain(a), w.plain(b)))
			})
			p.Row = nil
			return p, err
		},
	} {
		w.both(what, func(s *side, _ int) (any, error) { return call(s) })
	}
}

func (w *walk) startRun() {
	kind, key := run.Kind(w.pick("plan", "run")), w.pick("", "k1")
	var ids [2]string
	w.both("start run", func(s *side, i int) (any, error) {
		r, err := s.StartRun(w.Context(), run.Run{Kind: kind, StartedBy: "op", Key: key})
		if ids[i] = r.ID; err != nil {
			return nil, err
		}
		return []any{r.Kind, r.State}, nil
	})
	if ids[0] != "" {
		w.drawn(ids)
		if pair := [2]string{ids[0], ids[1]}; !slices.Contains(w.runs, pair) {
			w.runs = append(w.runs, pair)
		}
	}
}

// inRun does one thing with a run, mostly the youngest.
func (w *walk) inRun() {
	if len(w.runs) == 0 {
		w.startRun()
		return
	}
	ids := w.runs[len(w.runs)-1]
	if w.IntN(6) == 0 {
		ids = w.runs[w.IntN(len(w.runs))]
	}
	kinds := []run.FindingKind{run.Orphaned, run.Missing, run.Drifted, run.Unowned, run.Adopted}[w.IntN(3):]
	n := int64(w.IntN(3))
	switch w.IntN(11) {
	case 0:
		w.saveFindings(ids)
	case 1:
		w.saveFindings(ids)
		w.take(ids, kinds)
	case 2:
		w.take(ids, kinds)
	case 3:
		w.repair(ids[0], ids[1], int64(w.IntN(60)))
	case 4:
		w.both("close findings", func(s *side, i int) (any, error) {
			return s.CloseFindings(w.Context(), s.turn, ids[i], kinds[:1], run.Refused, run.ReasonFuse)
		})
	case 5:
		state := run.State(w.pick("planned", "complete", "partial", "failed"))
		w.both("finish run", func(s *side, i int) (any, error) {
			return nil, s.FinishRun(w.Context(), s.turn, run.Run{ID: ids[i], State: state, Candidates: n})
		})
	case 6:
		a := run.Apply{Who: "op", Key: w.pick("", "a1"), AcceptAccount: w.IntN(2) == 0}
		if w.IntN(2) == 0 {
			a.ExpectDeletions = &n
		}
		w.both("apply run", func(s *side, i int) (any, error) { return s.ApplyRun(w.Context(), ids[i], a) })
	case 7:
		w.both("cancel run", func(s *side, i int) (any, error) { return s.CancelRun(w.Context(), ids[i], store.Act{Who: "op"}) })
	case 8:
		why := w.pick("", "doubt")
		w.both("doubt", func(s *side, i int) (any, error) { return nil, s.DoubtAccount(w.Context(), s.turn, ids[i], why) })
	case 9:
		w.both("latch", func(s *side, i int) (any, error) { return nil, s.LatchFuse(w.Context(), s.turn, ids[i], "why") })
	case 10:
		confirmed := w.IntN(2) == 0
		w.both("save run", func(s *side, i int) (any, error) {
			return nil, s.SaveRun(w.Context(), s.turn, run.Run{ID: ids[i], Candidates: n, Account: run.Account{Key: "k", Confirmed: confirmed}})
		})
	}
	w.both("run", func(s *side, i int) (any, error) { return s.Run(w.Context(), ids[i]) })
	w.both("unsettled", func(s *side, i int) (any, error) { return s.Unsettled(w.Context(), ids[i]) })
	w.both("local of a run", func(s *side, i int) (any, error) {
		var out []run.Local
		err := s.Local(w.Context(), ids[i], 20, func(l run.Local) error { out = append(out, l); return nil })
		return out, err
	})
	w.both("findings", func(s *side, i int) (any, error) {
		all, err := s.Findings(w.Context(), ids[i], run.FindingFilter{}, "", 100)
		for j := range all {
			for k, e := range all[j].Evidence {
				if _, after, ok := strings.Cut(e, ", "); ok {
					all[j].Evidence[k] = after
				}
			}
		}
		return all, err
	})
}

func (w *walk) saveFindings(ids [2]string) {
	var all []run.Finding
	for range 1 + w.IntN(3) {
		all = append(all, run.Finding{FileID: w.fileID(), Kind: run.FindingKind(w.pick("missing", "drifted", "orphaned", "orphaned", "unowned", "adopted"))})
	}
	slices.SortFunc(all, func(a, b run.Finding) int { return strings.Compare(a.FileID, b.FileID) })
	all = slices.CompactFunc(all, func(a, b run.Finding) bool { return a.FileID == b.FileID })
	w.both("save findings", func(s *side, i int) (any, error) { return nil, s.SaveFindings(w.Context(), s.turn, ids[i], all) })
}

func (w *walk) take(ids [2]string, kinds []run.FindingKind) {
	limit := 1 + w.IntN(3)
	w.taking("take findings", w.IntN(4) > 0, func(s *side, i int) ([]event.Event, error) {
		return s.TakeFindings(w.Context(), s.turn, ids[i], kinds, limit)
	}, func(s *side, i int, events []string) error {
		return s.ConfirmFindings(w.Context(), s.turn, ids[i], events)
	})
}

// taking takes events on both sides, names them, and confirms them or not.
func (w *walk) taking(what string, confirmed bool, take func(s *side, i int) ([]event.Event, error), confirm func(s *side, i int, events []string) error) {
	var all [2][]event.Event
	w.both(what, func(s *side, i int) (any, error) {
		out, err := take(s, i)
		all[i] = out
		ids := make([]string, len(out))
		for j, e := range out {
			ids[j] = e.FileID + string(e.Source) + e.Kind + e.User
		}
		return ids, err
	})
	var ids [2][]string
	for j := range min(len(all[0]), len(all[1])) {
		pair := [2]event.Event{all[0][j], all[1][j]}
		w.drawn([2]string{pair[0].ID, pair[1].ID})
		w.drawn([2]string{pair[0].DeadLetter, pair[1].DeadLetter})
		w.taken = append(w.taken, pair)
		ids[0], ids[1] = append(ids[0], pair[0].ID), append(ids[1], pair[1].ID)
	}
	if confirmed && len(ids[0]) > 0 {
		w.both("confirm", func(s *side, i int) (any, error) { return nil, confirm(s, i, ids[i]) })
	}
}

func (w *walk) startJob() {
	j := event.Job{Verb: event.JobVerb(w.pick("replay", "replay", "discard", "recheck")), Who: "op", Key: w.pick("", "", "k1")}
	if j.Verb == event.JobRecheck {
		j.Files = []string{w.fileID(), w.fileID()}
	} else {
		j.Filter = event.Filter{Reason: w.pick("", "", "poison"), State: event.LetterState(w.pick("", "", "resolved"))}
	}
	var ids [2]string
	w.both("start job", func(s *side, i int) (any, error) {
		out, err := s.StartJob(w.Context(), j)
		ids[i] = out.ID
		return out, err
	})
	if ids[0] != "" {
		w.drawn(ids)
		w.jobs = append(w.jobs, ids)
	}
}

func (w *walk) inJob() {
	if len(w.jobs) == 0 {
		w.startJob()
		return
	}
	ids := w.jobs[len(w.jobs)-1]
	if w.IntN(3) == 0 {
		ids = w.jobs[w.IntN(len(w.jobs))]
	}
	limit := 1 + w.IntN(3)
	j, err := w.mem.Job(w.Context(), ids[1])
	w.must(err)
	switch n := w.IntN(6); {
	case n == 0:
		w.both("cancel job", func(s *side, i int) (any, error) { return s.CancelJob(w.Context(), ids[i], store.Act{Who: "op"}) })
	case n == 1:
		w.both("finish job", func(s *side, i int) (any, error) {
			return nil, s.FinishJob(w.Context(), s.turn, ids[i], event.JobDone, "")
		})
	case j.Verb == event.JobReplay:
		w.taking("take replays", w.IntN(4) > 0, func(s *side, i int) ([]event.Event, error) { return s.TakeReplays(w.Context(), s.turn, ids[i], limit) },
			func(s *side, i int, events []string) error {
				return s.ConfirmReplays(w.Context(), s.turn, ids[i], events)
			})
	case j.Verb == event.JobRecheck:
		w.taking("take rechecks", w.IntN(4) > 0, func(s *side, i int) ([]event.Event, error) { return s.TakeRechecks(w.Context(), s.turn, ids[i], limit) },
			func(s *side, i int, events []string) error {
				return s.ConfirmRechecks(w.Context(), s.turn, ids[i], events)
			})
	default:
		w.both("discard", func(s *side, i int) (any, error) {
			n, done, err := s.DiscardSlice(w.Context(), s.turn, ids[i], limit)
			return []any{n, done}, err
		})
	}
	w.both("job", func(s *side, i int) (any, error) { return s.Job(w.Context(), ids[i]) })
	w.both("outstanding", func(s *side, i int) (any, error) { return s.Outstanding(w.Context(), ids[i]) })
	w.both("open jobs", func(s *side, _ int) (any, error) { return s.OpenJobs(w.Context()) })
}
