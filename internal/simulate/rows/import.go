package rows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/store"
)

// Import adds the letters of an export in one transaction, and says how many were new and
// how many were known here already.
func (d *Door) Import(ctx context.Context, importID string, letters iter.Seq2[event.DeadLetter, error], by store.Act) (inserted, known int, err error) {
	if importID == "" {
		return 0, 0, errors.New("import: an import id is needed")
	}
	// Read before anything is locked: whoever sends them may be slow.
	var all []event.DeadLetter
	var broken error
	oldest := now().Add(-d.cfg.Retain.Tombstones)
	for l, err := range letters {
		if err == nil && l.AcceptedAt.Before(oldest) {
			err = fmt.Errorf("dead letter %s of %s: %w (since %s)", l.ID, l.AcceptedAt.Format(time.DateOnly), store.ErrTooOld, oldest.Format(time.DateOnly))
		}
		if broken = err; broken != nil {
			break
		}
		all = append(all, l)
	}
	err = d.do(ctx, "Import", importID, func() error {
		if broken != nil {
			return broken
		}
		inserted, known = 0, 0
		before := d.db.recorded(by, "import")
		for _, l := range all {
			if d.bring(l, importID) {
				inserted++
			} else {
				known++
			}
		}
		if by.Key != "" && before != nil {
			inserted, known = int(*before.count), before.filter["known"].(int)
			return nil
		}
		n := int64(inserted)
		d.db.record(by, "import", map[string]any{"import": importID, "known": known})
		d.db.audit[len(d.db.audit)-1].count = &n
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	return inserted, known, nil
}

// bring adds one letter, and says whether it was new. A letter of an event that has
// another letter here is that one.
func (d *Door) bring(in event.DeadLetter, importID string) bool {
	if had := d.db.letters[in.ID]; had != nil {
		had.importID = importID
		return false
	}
	if d.db.letterOf[in.EventID] != "" {
		return false
	}
	e := rule.Ended{Pending: event.Pending{Attempts: in.Attempts, Event: event.Event{
		ID: in.EventID, FileID: in.FileID, Source: in.Source, Origin: in.Origin, Kind: in.Kind, User: in.User, WebhookID: in.WebhookID,
		AcceptedAt: in.AcceptedAt, UpdatedAt: in.UpdatedAt, Headers: in.Headers, Body: in.Body}}}
	spans := d.secrets.Hide(&e)
	whole(&e.Event)
	l := &letter{DeadLetter: in, importID: importID}
	l.AcceptedAt, l.UpdatedAt, l.CreatedAt, l.ChangedAt = e.AcceptedAt, e.UpdatedAt, micros(in.CreatedAt), now()
	l.Headers, l.Body, l.Attempts, l.Note = e.Headers, e.Body, e.Attempts, d.secrets.Text(in.Note)
	l.Masked = append(spans, in.Masked...)
	if l.State == event.LetterReplaying || l.State == "" {
		l.State, l.ReplayEvent = event.LetterDead, ""
	}
	_ = json.Unmarshal([]byte(d.secrets.Text(string(in.History))), &l.history)
	l.History = nil
	d.db.letters[l.ID], d.db.letterOf[l.EventID] = l, l.ID
	return true
}
