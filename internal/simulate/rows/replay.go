package rows

import (
	"context"
	"fmt"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// lockJob is the job, in a turn. What was published and settled before its process could
// say so is counted first.
func (db *Database) lockJob(turn int64, id string) (*job, error) {
	if err := db.hold(turn); err != nil {
		return nil, err
	}
	k := db.jobs[id]
	if k == nil {
		return nil, fmt.Errorf("job %s: %w", id, event.ErrUnknown)
	}
	db.confirm(k, func(i *item) bool { return i.end != "" })
	return k, nil
}

// confirm records items of a job as published and counts them.
func (db *Database) confirm(k *job, which func(*item) bool) {
	sent := int64(0)
	for _, i := range db.items[k.ID] {
		if i.published.IsZero() && which(i) {
			i.published = now()
			sent++
		}
	}
	if sent > 0 {
		k.Done, k.Waiting, k.ChangedAt = k.Done+sent, "", now()
	}
}

// TakeReplays marks up to limit dead letters of the job as replaying, each with the event
// that is to be published for it; first, by themselves, those taken before and never
// confirmed.
func (d *Door) TakeReplays(ctx context.Context, turn int64, jobID string, limit int) (out []event.Event, err error) {
	err = d.do(ctx, "TakeReplays", jobID, func() error {
		out = nil
		k, err := d.db.lockJob(turn, jobID)
		if err != nil {
			return err
		}
		for _, i := range d.db.unconfirmed(jobID, limit) {
			if l := d.db.letters[i.item]; l != nil {
				e := replayOf(l, i.eventID)
				out = append(out, e)
			}
		}
		if len(out) > 0 || k.State != event.JobRunning {
			return nil
		}
		for _, l := range d.db.nextLetters(k, limit, func(l *letter) bool { return d.takeable(k.Filter, l) }) {
			id := l.ReplayEvent
			if l.State != event.LetterReplaying || id == "" {
				id = d.db.newID()
			}
			out = append(out, replayOf(l, id))
			l.State, l.ReplayEvent, l.ChangedAt = event.LetterReplaying, id, now()
			d.db.items[jobID][l.ID] = &item{item: l.ID, eventID: id, takenAt: now()}
			k.move(l.ID, 0)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// replayOf is the event that sends the letter through again: new work with the old event's
// time and user.
func replayOf(l *letter, id string) event.Event {
	d := l.whole()
	return event.Event{
		ID: id, Source: event.Replay, Origin: d.Origin, Kind: d.Kind, FileID: d.FileID, User: d.User, AcceptedAt: d.AcceptedAt,
		UpdatedAt: d.UpdatedAt, WebhookID: d.WebhookID, DeadLetter: d.ID, Headers: d.Headers, Body: d.Body,
	}
}

// takeable says whether a replay may take the letter now. One that is replaying is
// somebody else's, unless its event was published long ago and is known nowhere.
func (d *Door) takeable(f event.Filter, l *letter) bool {
	switch {
	case l.FileID == "":
		return false
	case l.State == event.LetterDead:
		return true
	case l.State != event.LetterReplaying:
		return explicit(f)
	}
	lost := now().Add(-d.cfg.ReplayLost)
	if !l.ChangedAt.Before(lost) || d.db.ledger[l.ReplayEvent] != nil || d.db.retries[l.ReplayEvent] != nil {
		return false
	}
	for _, items := range d.db.items {
		for _, i := range items {
			if i.eventID == l.ReplayEvent && !i.published.IsZero() && !i.published.Before(lost) {
				return false
			}
		}
	}
	return true
}

func (db *Database) nextLetters(k *job, limit int, which func(*letter) bool) []*letter {
	all := db.lettersWhere(func(l *letter) bool { return l.ID > k.position && l.ID <= k.upto && matches(k.Filter, l) && which(l) })
	return all[:min(limit, len(all))]
}

func (k *job) move(position string, done int64) {
	k.position, k.Done, k.Waiting, k.ChangedAt = position, k.Done+done, "", now()
}

// ConfirmReplays records that these events of the job were published. Confirming twice
// counts once.
func (d *Door) ConfirmReplays(ctx context.Context, turn int64, jobID string, eventIDs []string) error {
	return d.confirmed(ctx, "ConfirmReplays", turn, jobID, eventIDs)
}

func (d *Door) confirmed(ctx context.Context, method string, turn int64, jobID string, eventIDs []string) error {
	return d.do(ctx, method, jobID, func() error {
		if err := d.db.hold(turn); err != nil {
			return err
		}
		if k := d.db.jobs[jobID]; k != nil {
			sent := map[string]bool{}
			for _, id := range eventIDs {
				sent[id] = true
			}
			d.db.confirm(k, func(i *item) bool { return sent[i.eventID] })
		}
		return nil
	})
}

// TakeRechecks returns up to limit events of a recheck job that were not published yet,
// the same ones until they are confirmed.
func (d *Door) TakeRechecks(ctx context.Context, turn int64, jobID string, limit int) (out []event.Event, err error) {
	err = d.do(ctx, "TakeRechecks", jobID, func() error {
		out = nil
		k, err := d.db.lockJob(turn, jobID)
		if err != nil || k.State != event.JobRunning {
			return err
		}
		for _, i := range d.db.unconfirmed(jobID, limit) {
			out = append(out, event.Event{ID: i.eventID, Source: event.Replay, Origin: event.Reconcile, Kind: event.KindRecheck, FileID: i.item, AcceptedAt: i.takenAt})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ConfirmRechecks records that these events of the job were published.
func (d *Door) ConfirmRechecks(ctx context.Context, turn int64, jobID string, eventIDs []string) error {
	return d.confirmed(ctx, "ConfirmRechecks", turn, jobID, eventIDs)
}

// DiscardSlice marks up to limit dead letters of the job as discarded, and says how many
// and whether nothing is left.
func (d *Door) DiscardSlice(ctx context.Context, turn int64, jobID string, limit int) (n int, done bool, err error) {
	err = d.do(ctx, "DiscardSlice", jobID, func() error {
		n, done = 0, true
		k, err := d.db.lockJob(turn, jobID)
		if err != nil || k.State != event.JobRunning {
			return err
		}
		letters := d.db.nextLetters(k, limit, func(l *letter) bool { return l.State == event.LetterDead })
		n, done = len(letters), len(letters) < limit
		for _, l := range letters {
			l.State, l.ChangedAt = event.LetterDiscarded, now()
			d.db.tell([]rule.Line{{FileID: l.FileID, Source: "operator", Origin: string(l.Origin), Kind: "discard", User: l.User,
				Reason: l.Reason, End: string(event.Discarded),
				Detail: map[string]any{"who": k.Who, "note": k.Note, "job": k.ID, "deadLetter": l.ID, "event": l.EventID}}})
			k.move(l.ID, 1)
		}
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return n, done, nil
}
