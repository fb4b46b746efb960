package store

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// passportLines is how many ledger lines a passport shows, the youngest.
const passportLines = 500

// Passport is everything the database holds about one file.
type Passport struct {
	FileID string `json:"fileId"`
	// Row is the live row with every column it has, the application's too; null when
	// there is none.
	Row json.RawMessage `json:"row,omitempty"`
	// State is what file_state remembers; nil when the file was never seen.
	State *State `json:"state,omitempty"`
	// Lines are the ledger's, oldest first; Cut when older ones were left out.
	Lines       []Line       `json:"lines"`
	Cut         bool         `json:"cut,omitempty"`
	Retries     []Retry      `json:"retries"`
	DeadLetters []DeadLetter `json:"deadLetters"`
	// Jobs are what operators' jobs did with the file or its dead letters, oldest first.
	Jobs []FileJob `json:"jobs"`
	// Acts are the audit's lines that name the file, oldest first.
	Acts []AuditLine `json:"acts"`
	// Findings are what the youngest runs that had something to say of the file said,
	// oldest first.
	Findings []FileFinding `json:"findings"`
}

// passportFindings is how many runs' findings a passport shows.
const passportFindings = 50

// FileFinding is what one reconciliation run said of a file.
type FileFinding struct {
	Run string `json:"run"`
	run.Finding
}

// FileJob is one job's part in a file's story: an event it sent.
type FileJob struct {
	JobID  string        `json:"jobId"`
	Verb   event.JobVerb `json:"verb"`
	Who    string        `json:"who"`
	Note   string        `json:"note,omitempty"`
	At     time.Time     `json:"at"` // when the job took it
	Letter string        `json:"letter,omitempty"`
	Event  string        `json:"event"`
	// PublishedAt and EndedAt are zero as long as it was not; End and Reason say how it
	// ended.
	PublishedAt time.Time     `json:"publishedAt,omitzero"`
	EndedAt     time.Time     `json:"endedAt,omitzero"`
	End         event.EndKind `json:"end,omitempty"`
	Reason      string        `json:"reason,omitempty"`
}

// AuditLine is one operator's act.
type AuditLine struct {
	ID     string          `json:"id"`
	At     time.Time       `json:"at"`
	Who    string          `json:"who"`
	Verb   string          `json:"verb"`
	Filter json.RawMessage `json:"filter,omitempty"`
	Note   string          `json:"note,omitempty"`
	JobID  string          `json:"jobId,omitempty"`
}

// State is the file's line in file_state.
type State struct {
	Seen         int64     `json:"seen"`
	High         time.Time `json:"high,omitzero"`
	FirstSeen    time.Time `json:"firstSeen"`
	GoneAt       time.Time `json:"goneAt,omitzero"`
	GoneWhy      string    `json:"goneWhy,omitempty"`
	SuspectFence int64     `json:"suspectFence,omitempty"`
	SuspectAt    time.Time `json:"suspectAt,omitzero"`
	Owner        string    `json:"owner"`
	OwnerKind    string    `json:"ownerKind"`
	OwnerAt      time.Time `json:"ownerAt,omitzero"`
	OwnerEvent   string    `json:"ownerEvent,omitempty"`
	Ticket       string    `json:"ticket,omitempty"`
	Flags        []string  `json:"flags"`
}

// Line is one line of the ledger.
type Line struct {
	ID         string          `json:"id"`
	At         time.Time       `json:"at"`
	Source     string          `json:"source"`
	Origin     string          `json:"origin"`
	Kind       string          `json:"kind"`
	User       string          `json:"user,omitempty"`
	AcceptedAt time.Time       `json:"acceptedAt,omitzero"`
	Verdict    string          `json:"verdict,omitempty"`
	Outcome    string          `json:"outcome,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	End        string          `json:"end,omitempty"`
	Fence      int64           `json:"fence,omitempty"`
	Status     int             `json:"status,omitempty"`
	RequestID  string          `json:"requestId,omitempty"`
	Detail     json.RawMessage `json:"detail,omitempty"`
}

// Retry is one event of the file that waits.
type Retry struct {
	EventID    string        `json:"eventId"`
	Source     string        `json:"source"`
	Kind       string        `json:"kind"`
	User       string        `json:"user,omitempty"`
	AcceptedAt time.Time     `json:"acceptedAt"`
	DueAt      time.Time     `json:"dueAt"`
	Tries      int           `json:"tries"`
	Waited     time.Duration `json:"waited"`
	Reason     string        `json:"reason,omitempty"`
}

// DeadLetter is one event of the file that was set aside.
type DeadLetter struct {
	ID         string          `json:"id"`
	EventID    string          `json:"eventId"`
	Source     string          `json:"source"`
	Kind       string          `json:"kind"`
	User       string          `json:"user,omitempty"`
	AcceptedAt time.Time       `json:"acceptedAt"`
	Class      string          `json:"class"`
	Reason     string          `json:"reason"`
	Note       string          `json:"note,omitempty"`
	State      string          `json:"state"`
	CreatedAt  time.Time       `json:"createdAt"`
	Attempts   int             `json:"attempts"`
	History    json.RawMessage `json:"history"`
	// Origin is the source of the event that a replay replayed; ReplayEvent is the event
	// that last sent it through again.
	Origin      string    `json:"origin"`
	ReplayEvent string    `json:"replayEvent,omitempty"`
	ChangedAt   time.Time `json:"changedAt"`
	// Tries are the attempts themselves, oldest first, over all replays.
	Tries []event.Attempt `json:"tries,omitempty"`
}

// Passport reads all of it as of one moment.
func (s *Store) Passport(ctx context.Context, fileID string) (Passport, error) {
	var out Passport
	err := s.try(ctx, "read passport", func(ctx context.Context) error {
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			p := Passport{FileID: fileID}
			b := &pgx.Batch{}
			p.queueState(b)
			p.queueLines(b)
			p.queueWaiting(b)
			p.queueActs(b)
			p.queueFindings(b)
			if err := send(ctx, tx, b); err != nil {
				return err
			}
			slices.Reverse(p.Lines)
			slices.Reverse(p.Findings)
			if p.Cut = len(p.Lines) > passportLines; p.Cut {
				p.Lines = p.Lines[1:]
			}
			out = p
			return nil
		})
	})
	return out, err
}

func (p *Passport) queueState(b *pgx.Batch) {
	b.Queue(`SELECT to_jsonb(f)::text FROM (SELECT 1) one LEFT JOIN public.imagekit_files f ON f.file_id = $1`, p.FileID).QueryRow(func(row pgx.Row) error {
		var shown *string
		err := row.Scan(&shown)
		p.Row = raw(shown)
		return err
	})
	b.Queue(`SELECT seen, nullif(high, '-infinity'), first_seen, gone_at, coalesce(gone_why, ''), coalesce(suspect_fence, 0), suspect_at, owner, owner_kind,
			owner_at, coalesce(owner_event, ''), coalesce(ticket, ''), flags FROM trueup.file_state WHERE file_id = $1`, p.FileID).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var s State
			var high, gone, suspect, at *time.Time
			err := rows.Scan(&s.Seen, &high, &s.FirstSeen, &gone, &s.GoneWhy, &s.SuspectFence, &suspect, &s.Owner, &s.OwnerKind, &at, &s.OwnerEvent, &s.Ticket, &s.Flags)
			if err != nil {
				return err
			}
			s.High, s.GoneAt, s.SuspectAt, s.OwnerAt = orZero(high), orZero(gone), orZero(suspect), orZero(at)
			p.State = &s
		}
		return rows.Err()
	})
}

func (p *Passport) queueLines(b *pgx.Batch) {
	b.Queue(`SELECT id, at, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind, coalesce(fence, 0), coalesce(status, 0),
			coalesce(request_id, ''), detail::text FROM trueup.ledger WHERE file_id = $1 ORDER BY at DESC, id DESC LIMIT $2`, p.FileID, passportLines+1).
		Query(func(rows pgx.Rows) (err error) {
			p.Lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Line, error) {
				var l Line
				var accepted *time.Time
				var detail *string
				err := row.Scan(&l.ID, &l.At, &l.Source, &l.Origin, &l.Kind, &l.User, &accepted, &l.Verdict, &l.Outcome, &l.Reason, &l.End, &l.Fence, &l.Status,
					&l.RequestID, &detail)
				l.AcceptedAt, l.Detail = orZero(accepted), raw(detail)
				return l, err
			})
			return err
		})
}

func (p *Passport) queueWaiting(b *pgx.Batch) {
	b.Queue(`SELECT event_id, source, kind, user_id, accepted_at, due_at, tries, waited_ms, reason FROM trueup.retries WHERE file_id = $1 ORDER BY due_at`, p.FileID).
		Query(func(rows pgx.Rows) (err error) {
			p.Retries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Retry, error) {
				var r Retry
				var ms int64
				err := row.Scan(&r.EventID, &r.Source, &r.Kind, &r.User, &r.AcceptedAt, &r.DueAt, &r.Tries, &ms, &r.Reason)
				r.Waited = time.Duration(ms) * time.Millisecond
				return r, err
			})
			return err
		})
	b.Queue(`SELECT id, event_id, source, kind, user_id, accepted_at, class, reason, note, state, created_at, history::text,
				origin, coalesce(replay_event, ''), updated_at, attempts
			FROM trueup.dead_letters WHERE file_id = $1 ORDER BY id`, p.FileID).
		Query(func(rows pgx.Rows) (err error) {
			p.DeadLetters, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (DeadLetter, error) {
				var d DeadLetter
				var history string
				err := row.Scan(&d.ID, &d.EventID, &d.Source, &d.Kind, &d.User, &d.AcceptedAt, &d.Class, &d.Reason, &d.Note, &d.State, &d.CreatedAt, &history,
					&d.Origin, &d.ReplayEvent, &d.ChangedAt, &d.Tries)
				d.History, d.Attempts = json.RawMessage(history), len(d.Tries)
				return d, err
			})
			return err
		})
}

// queueActs reads what operators did: what their jobs sent for the file or for its dead
// letters, and what the audit has under its name.
func (p *Passport) queueActs(b *pgx.Batch) {
	b.Queue(`SELECT j.id, j.verb, j.who, j.note, i.taken_at, CASE WHEN j.verb = 'recheck' THEN '' ELSE i.item END, i.event_id, i.published_at, i.ended_at,
			i.end_kind, i.reason FROM trueup.job_items i JOIN trueup.jobs j ON j.id = i.job_id
		WHERE i.item = $1 AND j.verb = 'recheck'
			OR i.item = ANY(ARRAY(SELECT d.id FROM trueup.dead_letters d WHERE d.file_id = $1)) AND j.verb <> 'recheck'
		ORDER BY i.taken_at, j.id LIMIT $2`, p.FileID, passportLines).
		Query(func(rows pgx.Rows) (err error) {
			p.Jobs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (FileJob, error) {
				var j FileJob
				var published, ended *time.Time
				err := row.Scan(&j.JobID, &j.Verb, &j.Who, &j.Note, &j.At, &j.Letter, &j.Event, &published, &ended, &j.End, &j.Reason)
				j.PublishedAt, j.EndedAt = orZero(published), orZero(ended)
				return j, err
			})
			return err
		})
	b.Queue(`SELECT id, at, who, verb, filter::text, note, coalesce(job_id, '') FROM trueup.audit WHERE filter ? 'file' AND filter->>'file' = $1
			ORDER BY at, id LIMIT $2`, p.FileID, passportLines).
		Query(func(rows pgx.Rows) (err error) {
			p.Acts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (AuditLine, error) {
				var a AuditLine
				var filter string
				err := row.Scan(&a.ID, &a.At, &a.Who, &a.Verb, &filter, &a.Note, &a.JobID)
				a.Filter = json.RawMessage(filter)
				return a, err
			})
			return err
		})
}

func (p *Passport) queueFindings(b *pgx.Batch) {
	b.Queue(`SELECT `+findingColumns+`, f.run_id FROM trueup.findings f WHERE f.file_id = $1 ORDER BY f.run_id DESC LIMIT $2`, p.FileID, passportFindings).
		Query(func(rows pgx.Rows) (err error) {
			p.Findings, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (out FileFinding, err error) {
				out.Finding, err = scanFinding(row, &out.Run)
				return out, err
			})
			return err
		})
}
