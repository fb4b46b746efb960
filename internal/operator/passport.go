package operator

import (
	"encoding/json"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// Passport is all that is known of one file.
type Passport struct {
	FileID string `json:"fileId"`
	// Row is what stands in imagekit_files; nil when nothing does.
	Row *Row `json:"row,omitempty"`
	// State is what trueup itself remembers; nil when it never saw the file.
	State *State `json:"state,omitempty"`
	// Lines are the ledger's, oldest first.
	Lines []Line `json:"lines"`
	// Retries are events waiting for another look.
	Retries []Retry `json:"retries"`
	// DeadLetters, oldest first, resolved ones too.
	DeadLetters []DeadLetter `json:"deadLetters"`
	// Jobs are the events that operators' jobs sent for the file or its dead letters,
	// oldest first; Acts the audit's lines that name the file.
	Jobs []FileJob `json:"jobs"`
	Acts []FileAct `json:"acts"`
	// Findings are what reconciliation runs said of the file, oldest first.
	Findings []FileFinding `json:"findings"`
	// Cut is true when older lines were left out.
	Cut bool `json:"cut,omitempty"`
	// Why tells it in sentences; the last one is the conclusion.
	Why []string `json:"why"`
}

// Row is the live row, reduced to what explains it.
type Row struct {
	URL       string     `json:"fileUrl"`
	User      string     `json:"userId"`
	Name      string     `json:"fileName,omitempty"`
	Path      string     `json:"filePath,omitempty"`
	Uploaded  *time.Time `json:"uploadTimestamp,omitempty"`
	Updated   *time.Time `json:"remoteUpdatedAt,omitempty"`
	Synced    *time.Time `json:"syncedAt,omitempty"`
	VersionID string     `json:"versionId,omitempty"`
}

// State is the file's line in file_state.
type State struct {
	Seen       int64      `json:"seen"`
	High       *time.Time `json:"high,omitempty"` // highest updatedAt ever seen
	FirstSeen  *time.Time `json:"firstSeen,omitempty"`
	GoneAt     *time.Time `json:"goneAt,omitempty"` // tombstone
	GoneWhy    string     `json:"goneWhy,omitempty"`
	SuspectAt  *time.Time `json:"suspectAt,omitempty"`
	Owner      string     `json:"owner"`
	OwnerKind  string     `json:"ownerKind"`
	OwnerAt    *time.Time `json:"ownerAt,omitempty"`    // acceptedAt of the winning claim
	OwnerEvent string     `json:"ownerEvent,omitempty"` // and its event
	Flags      []string   `json:"flags,omitempty"`
}

// Line is one line of the ledger: a settled event, an operator's act or a security
// note.
type Line struct {
	ID         string          `json:"id"`
	At         time.Time       `json:"at"`
	Source     string          `json:"source"`
	Origin     string          `json:"origin,omitempty"`
	Kind       string          `json:"kind"`
	User       string          `json:"user,omitempty"`
	AcceptedAt *time.Time      `json:"acceptedAt,omitempty"`
	Verdict    string          `json:"verdict,omitempty"`
	Outcome    string          `json:"outcome,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	End        string          `json:"end,omitempty"`
	Fence      int64           `json:"fence,omitempty"`
	Status     int             `json:"status,omitempty"`
	RequestID  string          `json:"requestId,omitempty"`
	Detail     json.RawMessage `json:"detail,omitempty"`
}

// Retry is one event that waits.
type Retry struct {
	EventID    string    `json:"eventId"`
	Source     string    `json:"source"`
	Kind       string    `json:"kind"`
	User       string    `json:"user,omitempty"`
	AcceptedAt time.Time `json:"acceptedAt"`
	DueAt      time.Time `json:"dueAt"`
	Tries      int       `json:"tries"`
	WaitedMS   int64     `json:"waitedMs"`
	Reason     string    `json:"reason,omitempty"`
}

// DeadLetter is one event set aside.
type DeadLetter struct {
	ID         string    `json:"id"`
	EventID    string    `json:"eventId"`
	Source     string    `json:"source"`
	Kind       string    `json:"kind"`
	User       string    `json:"user,omitempty"`
	AcceptedAt time.Time `json:"acceptedAt"`
	Class      string    `json:"class"`
	Reason     string    `json:"reason"`
	Note       string    `json:"note,omitempty"`
	State      string    `json:"state"`
	CreatedAt  time.Time `json:"createdAt"`
	Attempts   int       `json:"attempts"`
	// Origin is the source of the event that a replay replayed; ReplayEvent is the event
	// that last sent it through again.
	Origin      string    `json:"origin,omitempty"`
	ReplayEvent string    `json:"replayEvent,omitempty"`
	ChangedAt   time.Time `json:"changedAt"`
	// Tries are the counted attempts, oldest first, over all replays; History is one
	// entry per replay that ended.
	Tries   []event.Attempt `json:"tries,omitempty"`
	History json.RawMessage `json:"history,omitempty"`
}

// FileJob is one job's part in a file's story.
type FileJob struct {
	JobID  string    `json:"jobId"`
	Verb   string    `json:"verb"`
	Who    string    `json:"who"`
	Note   string    `json:"note,omitempty"`
	At     time.Time `json:"at"`
	Letter string    `json:"letter,omitempty"` // the dead letter replayed
	Event  string    `json:"event"`
	// PublishedAt and EndedAt are nil as long as it was not; End and Reason say how it
	// ended.
	PublishedAt *time.Time `json:"publishedAt,omitempty"`
	EndedAt     *time.Time `json:"endedAt,omitempty"`
	End         string     `json:"end,omitempty"`
	Reason      string     `json:"reason,omitempty"`
}

// FileAct is one operator's act that names the file.
type FileAct struct {
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	Who   string    `json:"who"`
	Verb  string    `json:"verb"`
	Note  string    `json:"note,omitempty"`
	JobID string    `json:"jobId,omitempty"`
}

// FileFinding is what one reconciliation run had to say of the file.
type FileFinding struct {
	Run string `json:"run"`
	run.Finding
}
