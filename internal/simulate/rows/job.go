package rows

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

// StartJob counts what the job is about and records it. The same caller with the same verb
// and key gets the first job back, or store.ErrKeyReused where the request differs.
func (d *Door) StartJob(ctx context.Context, j event.Job) (out event.Job, err error) {
	request, err := requestOf(&j)
	if err != nil {
		return event.Job{}, err
	}
	err = d.do(ctx, "StartJob", j.Key, func() error {
		if first := d.db.jobOfKey(&j); first != nil {
			if first.request != request {
				return store.ErrKeyReused
			}
			out = d.db.toldJob(first)
			return nil
		}
		if err := d.db.knownLetters(j.Filter.IDs); err != nil {
			return err
		}
		out = d.db.toldJob(d.db.start(j, request))
		return nil
	})
	if err != nil {
		return event.Job{}, err
	}
	return out, nil
}

// requestOf checks what is asked for, brings the files into order and hashes it.
func requestOf(j *event.Job) (sum [32]byte, err error) {
	switch j.Verb {
	case event.JobReplay, event.JobDiscard:
		if len(j.Files) > 0 {
			return sum, fmt.Errorf("start job: %s takes dead letters, not files", j.Verb)
		}
	case event.JobRecheck:
		if len(j.Files) == 0 {
			return sum, errors.New("start job: recheck needs files")
		}
	default:
		return sum, fmt.Errorf("start job: %q is no verb of a job", j.Verb)
	}
	j.Files = unique(j.Files)
	for _, id := range j.Files {
		if !file.ValidID(id) {
			return sum, fmt.Errorf("start job: %q cannot be a file id", id)
		}
	}
	b, err := json.Marshal([]any{j.Filter, j.Files})
	if err != nil {
		return sum, fmt.Errorf("start job: %w", err)
	}
	return sha256.Sum256(b), nil
}

func (db *Database) jobOfKey(j *event.Job) *job {
	for _, had := range db.jobs {
		if j.Key != "" && had.Key == j.Key && had.Who == j.Who && had.Verb == j.Verb {
			return had
		}
	}
	return nil
}

// start counts the job's items and bounds them.
func (db *Database) start(j event.Job, request [32]byte) *job {
	k := &job{request: request, Job: event.Job{ID: db.newID(), Verb: j.Verb, Filter: j.Filter, Files: j.Files, Who: j.Who, Note: j.Note, Key: j.Key,
		State: event.JobRunning, CreatedAt: now(), ChangedAt: now()}}
	db.jobs[k.ID], db.items[k.ID] = k, map[string]*item{}
	filter := map[string]any{}
	if j.Verb == event.JobRecheck {
		for _, id := range j.Files {
			db.items[k.ID][id] = &item{item: id, eventID: db.newID(), takenAt: now()}
		}
		k.Total, k.Filter = int64(len(j.Files)), event.Filter{}
		k.Files = j.Files[:min(len(j.Files), 100)]
		filter["files"], filter["count"] = k.Files, len(j.Files)
		if len(j.Files) == 1 {
			filter["file"] = j.Files[0]
		}
	} else {
		k.upto = db.lastLetter()
		k.Total = int64(len(db.lettersWhere(func(l *letter) bool { return matches(j.Filter, l) && countsFor(j.Verb, j.Filter, l) })))
		if k.Total == 0 {
			k.State, k.FinishedAt = event.JobDone, now()
		}
		_ = json.Unmarshal(encode(j.Filter), &filter)
	}
	total := k.Total
	db.audit = append(db.audit, &act{id: db.newID(), at: now(), who: j.Who, verb: string(j.Verb), note: j.Note, key: j.Key, jobID: k.ID, filter: filter, count: &total})
	return k
}

// countsFor says whether a job counts the letter as its own when it begins.
func countsFor(verb event.JobVerb, f event.Filter, l *letter) bool {
	switch {
	case verb == event.JobDiscard:
		return l.State == event.LetterDead
	case explicit(f):
		return true
	}
	return l.State == event.LetterDead || l.State == event.LetterReplaying
}

// explicit: who names letters or a state means those, also where they have ended.
func explicit(f event.Filter) bool { return len(f.IDs) > 0 || f.State != "" }

// toldJob is the job with what became of its items so far.
func (db *Database) toldJob(k *job) event.Job {
	j := k.Job
	for _, i := range db.items[j.ID] {
		if j.Outcomes == nil {
			j.Outcomes, j.Reasons = map[string]int64{}, map[string]int64{}
		}
		j.Outcomes[outcomeWord(j.Verb, i.end)]++
		if i.end == event.Dead || i.end == event.Rejected {
			j.Reasons[i.reason]++
		}
	}
	return j
}

// outcomeWord is "resolved", "dead" or "replaying" for a letter; the end, or "pending",
// for a recheck.
func outcomeWord(verb event.JobVerb, end event.EndKind) string {
	switch {
	case verb == event.JobRecheck && end == "":
		return "pending"
	case verb == event.JobRecheck || end == event.Dead:
		return string(end)
	case end == "":
		return string(event.LetterReplaying)
	}
	return string(event.LetterResolved)
}

// Job returns one job. It wraps event.ErrUnknown where there is none.
func (d *Door) Job(ctx context.Context, id string) (out event.Job, err error) {
	err = d.do(ctx, "Job", id, func() (err error) { out, err = d.db.jobNamed(id); return err })
	if err != nil {
		return event.Job{}, err
	}
	return out, nil
}

func (db *Database) jobNamed(id string) (event.Job, error) {
	k := db.jobs[id]
	if k == nil {
		return event.Job{}, fmt.Errorf("job %s: %w", id, event.ErrUnknown)
	}
	return db.toldJob(k), nil
}

// Jobs returns up to limit jobs, the youngest first, older than the id given.
func (d *Door) Jobs(ctx context.Context, after string, limit int) (out []event.Job, err error) {
	err = d.do(ctx, "Jobs", "", func() error {
		out = nil
		for _, k := range slices.SortedFunc(maps.Values(d.db.jobs), func(a, b *job) int { return strings.Compare(b.ID, a.ID) }) {
			if (after == "" || k.ID < after) && len(out) < limit {
				out = append(out, d.db.toldJob(k))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// OpenJobs returns the jobs that still have something to publish, oldest first.
func (d *Door) OpenJobs(ctx context.Context) (out []event.Job, err error) {
	err = d.do(ctx, "OpenJobs", "", func() error {
		out = nil
		for _, id := range sorted(d.db.jobs) {
			k := d.db.jobs[id]
			if k.State == event.JobRunning || k.State == event.JobCancelled && k.Verb == event.JobReplay && len(d.db.unconfirmed(id, 1)) > 0 {
				out = append(out, k.Job)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// unconfirmed are items that the job has taken and not said to be published.
func (db *Database) unconfirmed(jobID string, limit int) (out []*item) {
	all := db.items[jobID]
	for _, id := range sorted(all) {
		if i := all[id]; i.published.IsZero() && i.end == "" && len(out) < limit {
			out = append(out, i)
		}
	}
	return out
}

// CancelJob stops a running job; one that is over stays as it is.
func (d *Door) CancelJob(ctx context.Context, id string, by store.Act) (out event.Job, err error) {
	err = d.do(ctx, "CancelJob", id, func() (err error) {
		if k := d.db.jobs[id]; k != nil && k.State == event.JobRunning {
			k.State, k.Waiting, k.ChangedAt, k.FinishedAt = event.JobCancelled, "", now(), now()
			d.db.record(by, "cancel", map[string]any{"job": id})
		}
		out, err = d.db.jobNamed(id)
		return err
	})
	if err != nil {
		return event.Job{}, err
	}
	return out, nil
}

// SetJobWaiting says in one sentence what a running job waits for; empty: it moves.
func (d *Door) SetJobWaiting(ctx context.Context, jobID, text string) error {
	return d.do(ctx, "SetJobWaiting", jobID, func() error {
		if k := d.db.jobs[jobID]; k != nil && k.Waiting != text && (k.State == event.JobRunning || text == "") {
			k.Waiting, k.ChangedAt = text, now()
		}
		return nil
	})
}

// FinishJob ends a running job.
func (d *Door) FinishJob(ctx context.Context, turn int64, jobID string, state event.JobState, why string) error {
	return d.do(ctx, "FinishJob", jobID, func() error {
		if err := d.db.hold(turn); err != nil {
			return err
		}
		k := d.db.jobs[jobID]
		if k == nil || k.State != event.JobRunning {
			return nil
		}
		k.State, k.Error, k.Waiting, k.ChangedAt, k.FinishedAt = state, why, "", now(), now()
		if state == event.JobDone {
			k.Skipped = max(k.Total-k.Done, 0)
		}
		return nil
	})
}

// Outstanding counts the events that a job has taken, or published, and that are not
// settled. For a recheck only published ones count.
func (d *Door) Outstanding(ctx context.Context, jobID string) (n int, err error) {
	err = d.do(ctx, "Outstanding", jobID, func() error {
		n = 0
		for _, i := range d.db.items[jobID] {
			if i.end == "" && (d.db.jobs[jobID].Verb != event.JobRecheck || !i.published.IsZero()) {
				n++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
