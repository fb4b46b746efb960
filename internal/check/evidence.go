package check

import (
	"encoding/json"
	"time"
)

// Evidence is everything a campaign can know without asking trueup: what senders were
// told, what ImageKit's stand-in holds and was asked, what the database and the stream
// hold. All of it is plain data; who gathers it is not the checker's business.
//
// A nil slice or map was not gathered, an empty one was and holds nothing: a check that
// needs a nil one fails with "no evidence". Whoever cannot gather something names the
// invariants that need it in Without; they are then listed as unchecked.
//
// Moments are gathered in this order, so that whatever moved meanwhile is found: Acks,
// Stream, Dump, then Truth, History and Requests.
type Evidence struct {
	Settings Settings
	// Without are the invariants that this campaign brings no evidence for.
	Without []Invariant

	// Acks is one entry per report and per webhook delivery that was sent, answered or
	// not; a report of an array is an entry of its own.
	Acks []Ack

	// Truth is every file ImageKit holds now, by id, as details show it.
	Truth map[string]json.RawMessage
	// History is every change of the library, in order.
	History []Change
	// Requests is ImageKit's log, in order.
	Requests []Request
	// Lies are the 404s that ImageKit was made to answer for files it holds.
	Lies []Lie

	// Dump is the database now; Series are earlier ones, oldest first.
	Dump
	Series []Dump
	// Hands are people's own acts on the table, in order.
	Hands []Hand

	// Stream is every message it holds now.
	Stream []Message
	// Stored are the ids of all events that the queue ever held, where it can tell (a
	// simulated one can): then what the dumps tell of must be exactly these. Optional.
	Stored []string

	// Starts are the moments at which a worker began to ask ImageKit, in order: one that
	// has just started cannot know what another was told. Optional: without it, all that
	// was ever told binds everybody.
	Starts []time.Time
}

// Settings are what trueup was told, as far as its rules depend on it, and what the
// campaign planted.
type Settings struct {
	AbsentConfirm   time.Duration // required
	NotFoundGrace   time.Duration // required
	ClaimWindow     time.Duration // required where Signed is false
	RetryMaxAge     time.Duration
	ReconcileEvery  time.Duration
	ReportRetention time.Duration
	// Signed: TRUEUP_OWNERSHIP=signed; else claims own, too.
	Signed bool
	// TicketField is the custom metadata field that holds tickets; empty: tags do.
	TicketField string
	// Keys are the secrets that open tickets (TRUEUP_KEYS, or the derived one), Account
	// what they are bound to.
	Keys    []string
	Account string

	// Columns are the content columns that trueup fills; nil means all of them.
	Columns []string

	// Markers stand in bodies that senders sent and must never reach the table.
	Markers []string
	// Poison are the files whose events cannot be settled: dead letters must be exactly
	// theirs. Nil: dead letters may be anybody's.
	Poison []string
	// PoisonDelay bounds how much later a healthy event may settle because of poison;
	// zero leaves that unchecked.
	PoisonDelay time.Duration

	// Skew is by how much the clocks of the database and of ImageKit may differ, Flight
	// how long a request or answer may be under way; both are zero in a simulation.
	Skew, Flight time.Duration
	// MaxWait is the longest reset of a 429 that trueup obeys whole; zero: any.
	MaxWait time.Duration
}

// Door is where a sender knocked.
type Door string

const (
	Report  Door = "report"  // POST /save-metadata
	Webhook Door = "webhook" // POST /webhooks/imagekit
)

// Ack is what one sender was told about one event.
type Ack struct {
	Door   Door
	SentAt time.Time
	// AnsweredAt is zero and Status 0 where no answer came: the event may be stored or
	// not.
	AnsweredAt time.Time
	Status     int
	// Genuine: a valid token, or a valid and fresh signature. Everything else must have no
	// effect.
	Genuine bool
	FileID  string
	Kind    string // a webhook's type; empty for a report
	// User is the report's caller, ReportID what it was answered with.
	User     string
	ReportID string
	// WebhookID is the webhook's id as its body says, else its webhook-id header's. Several
	// deliveries may have the same.
	WebhookID string
	// Body is what was sent; of an array of reports, its one element.
	Body []byte
}

// ChangeKind is what happened to a file.
type ChangeKind string

const (
	Uploaded    ChangeKind = "uploaded"    // a file that was not there
	Overwritten ChangeKind = "overwritten" // a new version
	Moved       ChangeKind = "moved"       // moved or renamed
	Edited      ChangeKind = "edited"      // tags, custom metadata, an older version restored
	Deleted     ChangeKind = "deleted"
)

// Change is one thing that happened in the library. At is no earlier than when it could
// first be seen.
type Change struct {
	At     time.Time
	FileID string
	Kind   ChangeKind
	// File is the file from then on, as details show it; nil for Deleted, and where it is
	// not known.
	File json.RawMessage
}

// Request is one line of ImageKit's log.
type Request struct {
	At   time.Time // when it came
	Took time.Duration
	// Method, Path and Query as they came, still escaped.
	Method, Path, Query string
	Endpoint            string // which limit it stands under: "details", "list", …
	Status              int
	// Cut: the answer did not arrive whole, so that its reader knows nothing of it.
	Cut bool
	// Body is the shape of the answer's body: object, array, text for anything else, empty
	// where it is not known. Only JSON is an answer of ImageKit's.
	Body string
	// Blank is a 200 that does not hold what was asked for: its reader has learnt nothing.
	Blank bool
	// Reset is what a 429 said in X-RateLimit-Reset; zero where it said nothing.
	Reset     time.Duration
	RequestID string
	// Who is the User-Agent, where that is known: other than "trueup/…" it is somebody else,
	// and each that differs is another process.
	Who string
}

// Lie is a time in which ImageKit answers 404 for what it holds.
type Lie struct {
	From, To time.Time
	// FileID is empty when it does so for all files: a library-wide failure, or the key of
	// another account.
	FileID string
}

// HandKind is what somebody did to public.imagekit_files.
type HandKind string

const (
	HandInsert HandKind = "insert"
	HandUpdate HandKind = "update"
	HandDelete HandKind = "delete"
)

// Hand is one act of a person, or of another application, on the table.
type Hand struct {
	At     time.Time
	FileID string // empty: all rows
	Kind   HandKind
	// User is the user_id that an insert or update wrote; empty where it wrote none.
	User string
}

// Dump is the database as one snapshot shows it.
type Dump struct {
	At          time.Time
	Rows        []Row
	States      []State
	Ledger      []Line
	Retries     []Retry
	DeadLetters []DeadLetter
	Runs        []Reconciliation
	Findings    []Finding
	Audit       []Act
	Fuse        *Fuse
	Expired     []Expired
}

// Row is one row of public.imagekit_files. Nil is NULL.
type Row struct {
	ID              int64
	FileID          string
	FileURL         string
	UserID          string
	UploadTimestamp *time.Time
	FileName        *string
	FilePath        *string
	FileType        *string
	MIME            *string
	SizeBytes       *int64
	Width, Height   *int64
	ThumbnailURL    *string
	Tags            []string
	CustomMetadata  json.RawMessage
	VersionID       *string
	IsPrivate       *bool
	RemoteUpdatedAt *time.Time
	SyncedAt        *time.Time
	// Xmin changes with every write of the row.
	Xmin string
}

// State is one line of trueup.file_state.
type State struct {
	FileID       string
	Seen         int64
	High         *time.Time // nil is -infinity
	Hash         *int64
	GoneAt       *time.Time
	GoneWhy      string
	SuspectFence *int64
	SuspectAt    *time.Time
	CountedAt    *time.Time
	Owner        string
	OwnerKind    string
	OwnerAt      *time.Time
	OwnerEvent   string
	ClaimOpen    bool
	Ticket       string
	Flags        []string
	Xmin         string
}

// Line is one line of trueup.ledger. What follows RequestID stands in its detail.
type Line struct {
	ID         string
	At         time.Time
	FileID     string
	Source     string
	Origin     string
	Kind       string
	User       string
	AcceptedAt *time.Time
	Verdict    string
	Outcome    string
	Reason     string
	EndKind    string
	Fence      *int64
	Status     int
	RequestID  string

	WebhookID  string // detail.webhookId
	DeadLetter string // detail.deadLetter
	Event      string // detail.event
	Claim      string // detail.claim
	Run        string // detail.run
	Tries      int    // detail.tries
}

// Retry is one row of trueup.retries.
type Retry struct {
	EventID    string
	FileID     string
	Source     string
	Origin     string
	Kind       string
	User       string
	AcceptedAt time.Time
	WebhookID  string
	DeadLetter string
	Body       []byte
	Tries      int
	DueAt      time.Time
	Reason     string
}

// DeadLetter is one row of trueup.dead_letters.
type DeadLetter struct {
	ID          string
	EventID     string
	FileID      string
	Source      string
	Origin      string
	Kind        string
	User        string
	AcceptedAt  time.Time
	WebhookID   string
	Class       string
	Reason      string
	State       string
	Headers     map[string]string
	Body        []byte
	Masked      []Span
	Attempts    []Attempt
	History     json.RawMessage // an array
	ReplayEvent string
	CreatedAt   time.Time
	ChangedAt   time.Time
}

// Span is part of a body, in bytes.
type Span struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// Attempt is one failed try at an event.
type Attempt struct {
	At        time.Time `json:"at"`
	Class     string    `json:"class"`
	Reason    string    `json:"reason"`
	Status    int       `json:"status"`
	RequestID string    `json:"requestId"`
	Excerpt   string    `json:"excerpt"`
	Version   string    `json:"version"`
}

// Reconciliation is one row of trueup.runs.
type Reconciliation struct {
	ID                string
	Kind              string
	State             string
	StartedAt         time.Time
	FinishedAt        *time.Time
	Listed            int64 // remote_rows
	Rows              int64 // live_rows
	Whole             bool
	Candidates        int64
	Fuse              string
	ExpectedDeletions *int64
	AccountAcceptedBy string
	Error             string
}

// Finding is one row of trueup.findings.
type Finding struct {
	RunID   string
	FileID  string
	Kind    string
	Status  string
	Reason  string
	EventID string
	EndedAt *time.Time
}

// Act is one row of trueup.audit.
type Act struct {
	ID   string
	At   time.Time
	Who  string
	Verb string
	// File and User are filter.file and filter.user, where the act is about one file.
	File, User string
	Note       string
}

// Fuse is the row of trueup.fuse.
type Fuse struct {
	LatchedAt    *time.Time
	Why          string
	ReleasedAt   *time.Time
	ReleasedBy   string
	AccountDoubt string
}

// Expired is one row of trueup.expired_counts.
type Expired struct {
	Place, State, Class string
	Count               int64
}

// Message is one message of the stream, as stored.
type Message struct {
	Sequence uint64
	Subject  string
	ID       string // Nats-Msg-Id
	StoredAt time.Time
	Data     []byte
}
