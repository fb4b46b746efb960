package collect

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/check"
)

func states(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.States, err = table(ctx, tx, `SELECT file_id, seen, nullif(high, '-infinity'), hash, gone_at, coalesce(gone_why, ''), suspect_fence, suspect_at, counted_at,
			owner, owner_kind, owner_at, coalesce(owner_event, ''), claim_open, coalesce(ticket, ''), flags, xmin::text
		FROM trueup.file_state ORDER BY file_id`,
		func(row pgx.CollectableRow) (s check.State, err error) {
			err = row.Scan(&s.FileID, &s.Seen, &s.High, &s.Hash, &s.GoneAt, &s.GoneWhy, &s.SuspectFence, &s.SuspectAt, &s.CountedAt,
				&s.Owner, &s.OwnerKind, &s.OwnerAt, &s.OwnerEvent, &s.ClaimOpen, &s.Ticket, &s.Flags, &s.Xmin)
			s.High, s.GoneAt, s.SuspectAt, s.CountedAt, s.OwnerAt = utc(s.High), utc(s.GoneAt), utc(s.SuspectAt), utc(s.CountedAt), utc(s.OwnerAt)
			return s, err
		})
	return err
}

func ledger(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Ledger, err = table(ctx, tx, `SELECT id, at, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind, fence,
			coalesce(status, 0), coalesce(request_id, ''), coalesce(detail->>'webhookId', ''), coalesce(detail->>'deadLetter', ''),
			coalesce(detail->>'event', ''), coalesce(detail->>'claim', ''), coalesce(detail->>'run', ''), coalesce((detail->>'tries')::int, 0)
		FROM trueup.ledger ORDER BY at, id`,
		func(row pgx.CollectableRow) (n check.Line, err error) {
			err = row.Scan(&n.ID, &n.At, &n.FileID, &n.Source, &n.Origin, &n.Kind, &n.User, &n.AcceptedAt, &n.Verdict, &n.Outcome, &n.Reason, &n.EndKind,
				&n.Fence, &n.Status, &n.RequestID, &n.WebhookID, &n.DeadLetter, &n.Event, &n.Claim, &n.Run, &n.Tries)
			n.At, n.AcceptedAt = n.At.UTC(), utc(n.AcceptedAt)
			return n, err
		})
	return err
}

func retries(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Retries, err = table(ctx, tx, `SELECT event_id, file_id, source, origin, kind, user_id, accepted_at, webhook_id, dead_letter, body, tries, due_at, reason
		FROM trueup.retries ORDER BY event_id`,
		func(row pgx.CollectableRow) (r check.Retry, err error) {
			err = row.Scan(&r.EventID, &r.FileID, &r.Source, &r.Origin, &r.Kind, &r.User, &r.AcceptedAt, &r.WebhookID, &r.DeadLetter, &r.Body, &r.Tries,
				&r.DueAt, &r.Reason)
			r.AcceptedAt, r.DueAt = r.AcceptedAt.UTC(), r.DueAt.UTC()
			return r, err
		})
	return err
}

func letters(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.DeadLetters, err = table(ctx, tx, `SELECT id, event_id, file_id, source, origin, kind, user_id, accepted_at, webhook_id, class, reason, state, headers, body,
			masked, attempts, history::text, coalesce(replay_event, ''), created_at, updated_at
		FROM trueup.dead_letters ORDER BY id`,
		func(row pgx.CollectableRow) (l check.DeadLetter, err error) {
			var history string
			err = row.Scan(&l.ID, &l.EventID, &l.FileID, &l.Source, &l.Origin, &l.Kind, &l.User, &l.AcceptedAt, &l.WebhookID, &l.Class, &l.Reason, &l.State,
				&l.Headers, &l.Body, &l.Masked, &l.Attempts, &history, &l.ReplayEvent, &l.CreatedAt, &l.ChangedAt)
			l.History = json.RawMessage(history)
			l.AcceptedAt, l.CreatedAt, l.ChangedAt = l.AcceptedAt.UTC(), l.CreatedAt.UTC(), l.ChangedAt.UTC()
			return l, err
		})
	return err
}

func runs(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Runs, err = table(ctx, tx, `SELECT id, kind, state, started_at, finished_at, coalesce(remote_rows, 0), coalesce(live_rows, 0), whole, candidates, fuse,
			expected_deletions, account_accepted_by, error
		FROM trueup.runs ORDER BY id`,
		func(row pgx.CollectableRow) (r check.Reconciliation, err error) {
			err = row.Scan(&r.ID, &r.Kind, &r.State, &r.StartedAt, &r.FinishedAt, &r.Listed, &r.Rows, &r.Whole, &r.Candidates, &r.Fuse, &r.ExpectedDeletions,
				&r.AccountAcceptedBy, &r.Error)
			r.StartedAt, r.FinishedAt = r.StartedAt.UTC(), utc(r.FinishedAt)
			return r, err
		})
	return err
}

func findings(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Findings, err = table(ctx, tx, `SELECT run_id, file_id, kind, status, reason, coalesce(event_id, ''), ended_at FROM trueup.findings ORDER BY run_id, file_id`,
		func(row pgx.CollectableRow) (f check.Finding, err error) {
			err = row.Scan(&f.RunID, &f.FileID, &f.Kind, &f.Status, &f.Reason, &f.EventID, &f.EndedAt)
			f.EndedAt = utc(f.EndedAt)
			return f, err
		})
	return err
}

func audit(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Audit, err = table(ctx, tx, `SELECT id, at, who, verb, coalesce(filter->>'file', ''), coalesce(filter->>'user', ''), note FROM trueup.audit ORDER BY at, id`,
		func(row pgx.CollectableRow) (a check.Act, err error) {
			err = row.Scan(&a.ID, &a.At, &a.Who, &a.Verb, &a.File, &a.User, &a.Note)
			a.At = a.At.UTC()
			return a, err
		})
	return err
}

func fuse(ctx context.Context, tx pgx.Tx, d *check.Dump) error {
	var f check.Fuse
	err := tx.QueryRow(ctx, `SELECT latched_at, why, released_at, released_by, account_doubt FROM trueup.fuse`).
		Scan(&f.LatchedAt, &f.Why, &f.ReleasedAt, &f.ReleasedBy, &f.AccountDoubt)
	f.LatchedAt, f.ReleasedAt = utc(f.LatchedAt), utc(f.ReleasedAt)
	d.Fuse = &f
	return err
}

func expired(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Expired, err = table(ctx, tx, `SELECT place, state, class, count FROM trueup.expired_counts ORDER BY place, state, class`,
		func(row pgx.CollectableRow) (x check.Expired, err error) {
			err = row.Scan(&x.Place, &x.State, &x.Class, &x.Count)
			return x, err
		})
	return err
}

// Columns are the content columns that `trueup migrate` found it may fill, for
// Settings.Columns.
func Columns(ctx context.Context, url string) ([]string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r, err := conn.Query(ctx, `SELECT name FROM trueup.mapped_columns WHERE name NOT IN ('file_id', 'user_id', 'synced_at') ORDER BY name`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowTo[string])
}
