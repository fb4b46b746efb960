package config

import "time"

// Config is everything the environment says. Each field is one variable, read from
// its tags:
//
//	env       the name, and after "default=" its default, as go-envconfig has them
//	dev       the default that `trueup dev` has instead
//	roles     the roles that use it; empty: all of them
//	required  the roles that do not start without it
//	check     rules of check.go, by name
//	doc       one line for people
//
// An empty variable counts as an unset one. A secret NAME may be given as NAME_FILE,
// the path of a file that holds it.
type Config struct {
	// Role is what it was loaded for.
	Role Role

	Listen    Listen    `title:"Listeners"`
	Callers   Callers   `title:"Who is calling (JWT)"`
	ImageKit  ImageKit  `title:"ImageKit"`
	Database  Database  `title:"Postgres"`
	Queue     Queue     `title:"Queue"`
	Ownership Ownership `title:"Ownership"`
	Timing    Timing    `title:"Patience"`
	Watchdog  Watchdog  `title:"Watchdog"`
	Retain    Retain    `title:"Retention"`
	Operator  Operator  `title:"Operator"`
	Log       Log       `title:"Logs"`

	// Ignored are the variables that were set and that this role refuses to see, in
	// order; only dev has any.
	Ignored []string
	// Warnings are sentences about what is allowed and unwise.
	Warnings []string
}

// Listen is where we listen, and what is let in.
type Listen struct {
	Addr           string        `env:"TRUEUP_ADDR,default=127.0.0.1:3000" roles:"serve ingest dev" check:"addr" doc:"public listener: reports, webhooks, upload parameters"`
	OpsAddr        string        `env:"TRUEUP_OPS_ADDR,default=127.0.0.1:3001" roles:"serve ingest worker dev" check:"addr" doc:"operator listener: health, metrics, operator API"`
	EmulatorAddr   string        `env:"TRUEUP_EMULATOR_ADDR,default=127.0.0.1:3002" roles:"dev emulator" check:"addr" doc:"the stand-in for ImageKit"`
	CORSOrigins    []string      `env:"TRUEUP_CORS_ORIGINS" roles:"serve ingest dev" check:"origins" doc:"exact origins of browsers that may call, comma-separated"`
	TrustedProxies []string      `env:"TRUEUP_TRUSTED_PROXIES" roles:"serve ingest dev" check:"prefixes" doc:"networks (CIDR) whose X-Forwarded-For is believed, comma-separated"`
	RatePerUser    float64       `env:"TRUEUP_RATE_PER_USER,default=50" dev:"0" roles:"serve ingest dev" check:"notnegative" doc:"requests and reports a second that one user may make; an array counts its reports; 0: no limit"`
	RateBurst      int           `env:"TRUEUP_RATE_BURST,default=200" roles:"serve ingest dev" check:"positive" doc:"how far a user may run ahead of that rate"`
	BadSignatures  int           `env:"TRUEUP_BAD_SIGNATURES_PER_MINUTE,default=60" dev:"0" roles:"serve ingest dev" check:"notnegative" doc:"failed webhook signatures that one address may send in a minute; 0: no limit"`
	Drain          time.Duration `env:"TRUEUP_DRAIN,default=30s" roles:"serve ingest worker dev" check:"drain" doc:"how long SIGTERM waits for work under way"`
}

// Callers says which tokens name a user.
type Callers struct {
	Secret   Secret `env:"TRUEUP_JWT_SECRET" roles:"serve ingest dev" check:"secret32" doc:"HS256 secret of the tokens, at least 32 bytes; or TRUEUP_JWKS_URL"`
	JWKSURL  string `env:"TRUEUP_JWKS_URL" roles:"serve ingest dev" check:"jwks" doc:"where the keys of RS256, ES256 and EdDSA tokens are published (https, or loopback)"`
	Issuer   string `env:"TRUEUP_JWT_ISSUER" roles:"serve ingest dev" required:"serve ingest" doc:"the iss that a token must have"`
	Audience string `env:"TRUEUP_JWT_AUDIENCE" roles:"serve ingest dev" required:"serve ingest" doc:"the aud that a token must have"`
}

// ImageKit is the account whose library the table follows.
type ImageKit struct {
	PublicKey      string        `env:"IMAGEKIT_PUBLIC_KEY" roles:"serve ingest emulator" required:"serve ingest" check:"word" doc:"ImageKit's public key, given to clients that upload"`
	PrivateKey     Secret        `env:"IMAGEKIT_PRIVATE_KEY" roles:"serve ingest worker emulator audit" required:"serve ingest worker audit" check:"word" doc:"ImageKit's private key: signs uploads, asks about files"`
	URLEndpoints   []string      `env:"IMAGEKIT_URL_ENDPOINT" roles:"serve ingest worker" required:"serve ingest" check:"urls" doc:"URL endpoint(s) of the account, comma-separated; the first names the account"`
	WebhookSecrets Secrets       `env:"IMAGEKIT_WEBHOOK_SECRET" roles:"serve ingest emulator operator" required:"serve ingest" check:"secrets16" doc:"webhook secret(s), comma-separated while one is being replaced"`
	BaseURL        string        `env:"IMAGE_KIT_BASE_URL,default=https://api.imagekit.io" roles:"serve worker audit" check:"baseurl" doc:"origin of ImageKit's management API (the SDKs' own name)"`
	RateMax        float64       `env:"TRUEUP_API_RATE_MAX,default=1000" roles:"serve worker dev audit" check:"positive" doc:"most calls a second to ImageKit, whatever its headers allow"`
	Timeout        time.Duration `env:"TRUEUP_API_TIMEOUT,default=10s" roles:"serve worker dev audit" check:"positive" doc:"how long one answer of ImageKit may take"`
	Patience       time.Duration `env:"TRUEUP_API_PATIENCE,default=3s" roles:"serve worker dev" check:"positive" doc:"how long all tries of one look-up may take before its event is retried later; a file that hangs holds up those of its batch as long"`
}

// Database is where the rows are.
type Database struct {
	URL      URL `env:"DATABASE_URL" roles:"serve ingest worker migrate audit" required:"serve worker audit" check:"postgres" doc:"Postgres; Neon's pooled address is fine (not for migrate); an ingest without it cannot answer GET /reports"`
	Unpooled URL `env:"DATABASE_URL_UNPOOLED" roles:"migrate" check:"postgres" doc:"Postgres without a pooler, for migrate; unset: DATABASE_URL if that is not pooled"`
	Conns    int `env:"TRUEUP_DATABASE_CONNS,default=8" roles:"serve ingest worker dev" check:"positive" doc:"most connections to Postgres; none is kept open while idle"`
}

// Queue is where accepted events wait.
type Queue struct {
	URL             URL    `env:"NATS_URL" roles:"serve ingest worker migrate" required:"ingest worker" check:"nats" doc:"external NATS 2.12 or newer, comma-separated; unset: embedded under TRUEUP_DATA_DIR"`
	Creds           string `env:"NATS_CREDS" roles:"serve ingest worker migrate" check:"file" doc:"path of a NATS credentials file"`
	Prefix          string `env:"TRUEUP_STREAM_PREFIX,default=trueup" roles:"serve ingest worker migrate dev" check:"prefix" doc:"first part of the names of streams and subjects; apart for each installation"`
	MaxBytes        Bytes  `env:"TRUEUP_QUEUE_MAX_BYTES,default=2GiB" roles:"serve ingest worker migrate dev" check:"positive" doc:"what the queue holds before ingest answers 503"`
	Replicas        int    `env:"TRUEUP_QUEUE_REPLICAS,default=0" roles:"migrate" check:"replicas" doc:"copies of the stream; 0: 3 on a cluster, else 1"`
	AllowNondurable bool   `env:"TRUEUP_ALLOW_NONDURABLE" roles:"serve ingest dev" doc:"1: accept events even where fsync is not proven"`
	DataDir         string `env:"TRUEUP_DATA_DIR,default=.trueup" roles:"serve worker dev emulator" check:"dir" doc:"where the embedded queue, the spool of a reconciliation run, and all of dev and the emulator are kept"`
}

// Ownership says how a file gets its owner.
type Ownership struct {
	Mode         string        `env:"TRUEUP_OWNERSHIP,default=claim" roles:"serve ingest worker dev" check:"ownership" doc:"claim: the first to report a fresh file may own it; signed: only tickets and operators"`
	ClaimWindow  time.Duration `env:"TRUEUP_CLAIM_WINDOW,default=1h" roles:"serve worker dev" check:"positive" doc:"how long after its upload a file can be claimed"`
	TicketField  string        `env:"TRUEUP_TICKET_FIELD" roles:"serve ingest worker dev audit" check:"field" doc:"custom metadata field that carries tickets; unset: a tag does"`
	UploadFolder string        `env:"TRUEUP_UPLOAD_FOLDER" roles:"serve ingest dev" check:"folder" doc:"folder that signed uploads must stay under, such as /u/{sub}; unset: any"`
	Overwrite    bool          `env:"TRUEUP_ALLOW_OVERWRITE" roles:"serve ingest dev" doc:"1: signed uploads may overwrite a file of the same path"`
	Keys         Secrets       `env:"TRUEUP_KEYS" roles:"serve ingest worker dev" check:"secrets32" doc:"seal tickets and report ids, comma-separated, newest first; the same in all replicas; unset: made from the private key"`
	Account      string        `env:"TRUEUP_ACCOUNT" roles:"serve ingest worker dev" check:"account" doc:"stable name of the account inside tickets; unset: the ImageKit id of the first URL endpoint"`
}

// Timing is how long things may take before something else is concluded.
type Timing struct {
	NotFoundGrace   time.Duration `env:"TRUEUP_NOT_FOUND_GRACE,default=15m" dev:"3s" roles:"serve worker dev" check:"positive" doc:"how long a file that ImageKit does not know is asked for"`
	AbsentConfirm   time.Duration `env:"TRUEUP_ABSENT_CONFIRM,default=60s" dev:"1s" roles:"serve worker dev" check:"positive" doc:"time between the two 404s that remove a row nobody announced deleted"`
	RetryMaxAge     time.Duration `env:"TRUEUP_RETRY_MAX_AGE,default=24h" roles:"serve worker dev" check:"positive" doc:"how long a failing event is retried before it is parked"`
	ReportRetention time.Duration `env:"TRUEUP_REPORT_RETENTION,default=720h" roles:"serve ingest dev" check:"positive" doc:"how long a report can be asked about"`
	ReconcileEvery  time.Duration `env:"TRUEUP_RECONCILE_EVERY,default=1h" dev:"0s" roles:"serve worker dev" check:"interval" doc:"how often the whole library is compared with the whole table, with 10 % jitter; 0: only when an operator says so"`
	PollEvery       time.Duration `env:"TRUEUP_POLL_EVERY,default=1m" dev:"0s" roles:"serve worker dev" check:"interval" doc:"how often ImageKit is asked what changed lately, so that webhooks need not come; 0: never"`
}

// Watchdog is when an event that does not come to an end restarts the process, to be
// tried alone and then parked.
type Watchdog struct {
	StepLimit   time.Duration `env:"TRUEUP_STEP_LIMIT,default=5s" roles:"serve worker dev" check:"positive" doc:"how long pure work on one event may take; longer, and the process restarts and tries the event alone"`
	MemoryLimit Bytes         `env:"TRUEUP_MEMORY_LIMIT" roles:"serve worker dev" check:"notnegative" doc:"memory beyond which an event at work is taken for the cause, and the process restarts; unset: GOMEMLIMIT, else 80 % of what the container or the machine has"`
}

// Retain is how long what has ended is remembered. What is older goes in small slices,
// beside the work.
type Retain struct {
	DeadCaller   time.Duration `env:"TRUEUP_RETAIN_DEAD_CALLER,default=2160h" roles:"serve worker dev" check:"positive" doc:"how long a dead letter of class caller is kept after its last change"`
	DeadImageKit time.Duration `env:"TRUEUP_RETAIN_DEAD_IMAGEKIT,default=2160h" roles:"serve worker dev" check:"positive" doc:"the same for class imagekit"`
	DeadDatabase time.Duration `env:"TRUEUP_RETAIN_DEAD_DATABASE,default=2160h" roles:"serve worker dev" check:"positive" doc:"the same for class database"`
	DeadTrueup   time.Duration `env:"TRUEUP_RETAIN_DEAD_TRUEUP,default=8760h" roles:"serve worker dev" check:"positive" doc:"the same for class trueup"`
	Ledger       time.Duration `env:"TRUEUP_RETAIN_LEDGER,default=8760h" roles:"serve worker dev" check:"positive" doc:"how long what why tells from is kept, and finished jobs"`
	Tombstones   time.Duration `env:"TRUEUP_RETAIN_TOMBSTONES,default=17520h" roles:"serve worker dev" check:"positive" doc:"how long a deleted file is remembered; longer than any dead letter and its retries, and no older letter is imported"`
}

// Operator is who may operate, and where the operator commands go.
type Operator struct {
	Tokens Secrets `env:"TRUEUP_OPS_TOKEN" roles:"serve ingest worker dev operator" check:"optokens" doc:"bearer token(s) of the operator API, comma-separated, each token or name:token, at least 16 characters"`
	URL    string  `env:"TRUEUP_OPS_URL" roles:"operator" check:"opsurl" doc:"operator API that commands such as status talk to; unset: the one in ./.trueup/dev.env"`
}

// Log is how we speak.
type Log struct {
	Format string `env:"TRUEUP_LOG_FORMAT,default=auto" check:"logformat" doc:"text, json, or auto: text on a terminal"`
	Level  string `env:"TRUEUP_LOG_LEVEL,default=info" check:"loglevel" doc:"debug, info, warn or error"`
}
