-- +goose Up
-- Everything but the live rows. goose's own table needs the schema before the first
-- migration, so the schema may stand already.
CREATE SCHEMA IF NOT EXISTS trueup;

-- A fence is drawn before ImageKit is asked and again when a row is written. CACHE 1:
-- with more, one session's later number could be smaller than another's earlier one.
CREATE SEQUENCE trueup.fence AS bigint CACHE 1;

-- One line per file ever seen: the arbiter of the order rule. COLLATE "C" is Go's
-- order, which sorted batches and the reconciliation merge rely on. No index on
-- anything that updates often, so that updates stay HOT.
CREATE TABLE trueup.file_state (
  file_id       text COLLATE "C" PRIMARY KEY,
  seen          bigint NOT NULL,
  high          timestamptz NOT NULL DEFAULT '-infinity',
  hash          bigint,
  gone_at       timestamptz,
  gone_why      text,
  suspect_fence bigint,      -- of the first 404; 0 while nothing has vouched for the library that gave it
  suspect_at    timestamptz,
  counted_at    timestamptz, -- when its absence was last counted against the fuse
  first_seen    timestamptz NOT NULL DEFAULT clock_timestamp(),
  owner         text NOT NULL DEFAULT '',
  owner_kind    text NOT NULL DEFAULT '' CHECK (owner_kind IN ('', 'proven', 'claimed', 'adopted', 'assigned')),
  owner_at      timestamptz,
  owner_event   text,
  claim_open    boolean NOT NULL DEFAULT false,
  ticket        text,
  flags         text[] NOT NULL DEFAULT '{}',
  CHECK ((owner = '') = (owner_kind = '')),
  CHECK ((suspect_at IS NULL) = (suspect_fence IS NULL))
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX file_state_ticket ON trueup.file_state (ticket) WHERE ticket IS NOT NULL;

-- One line per settled event (id is the event's) and per operator act, security note
-- or write that no event's end tells of (id is its own).
CREATE TABLE trueup.ledger (
  id          text COLLATE "C" PRIMARY KEY,
  at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  file_id     text COLLATE "C" NOT NULL,
  source      text NOT NULL,
  origin      text NOT NULL,
  kind        text NOT NULL,
  user_id     text NOT NULL DEFAULT '',
  accepted_at timestamptz,
  verdict     text NOT NULL DEFAULT '',
  outcome     text NOT NULL DEFAULT '',
  reason      text NOT NULL DEFAULT '',
  end_kind    text NOT NULL DEFAULT '',
  fence       bigint,
  status      int,
  request_id  text,
  detail      jsonb
);
CREATE INDEX ledger_file ON trueup.ledger (file_id, at);

-- One row per event, never per file: two events of one file wait for different things.
CREATE TABLE trueup.retries (
  event_id    text COLLATE "C" PRIMARY KEY,
  file_id     text COLLATE "C" NOT NULL,
  source      text NOT NULL,
  origin      text NOT NULL,
  kind        text NOT NULL,
  user_id     text NOT NULL DEFAULT '',
  accepted_at timestamptz NOT NULL,
  updated_at  timestamptz,
  webhook_id  text NOT NULL DEFAULT '',
  dead_letter text NOT NULL DEFAULT '',
  headers     jsonb NOT NULL DEFAULT '{}',
  body        bytea NOT NULL DEFAULT '',
  attempts    jsonb NOT NULL DEFAULT '[]',
  tries       int NOT NULL DEFAULT 0,
  waited_ms   bigint NOT NULL DEFAULT 0,
  first_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  due_at      timestamptz NOT NULL,
  reason      text NOT NULL DEFAULT ''
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX retries_due ON trueup.retries (due_at);
CREATE INDEX retries_file ON trueup.retries (file_id);

CREATE TABLE trueup.dead_letters (
  id           text COLLATE "C" PRIMARY KEY,
  event_id     text COLLATE "C" NOT NULL,
  file_id      text COLLATE "C" NOT NULL,
  source       text NOT NULL,
  origin       text NOT NULL,
  kind         text NOT NULL,
  user_id      text NOT NULL DEFAULT '',
  accepted_at  timestamptz NOT NULL,
  updated_at_remote timestamptz,
  webhook_id   text NOT NULL DEFAULT '',
  class        text NOT NULL CHECK (class IN ('caller', 'imagekit', 'database', 'trueup')),
  reason       text NOT NULL,
  note         text NOT NULL DEFAULT '',
  state        text NOT NULL DEFAULT 'dead' CHECK (state IN ('dead', 'replaying', 'resolved', 'discarded')),
  body         bytea NOT NULL DEFAULT '',
  headers      jsonb NOT NULL DEFAULT '{}',
  attempts     jsonb NOT NULL DEFAULT '[]',
  replay_event text,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  history      jsonb NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX dead_letters_event ON trueup.dead_letters (event_id);
CREATE INDEX dead_letters_list ON trueup.dead_letters (state, id);
CREATE INDEX dead_letters_class ON trueup.dead_letters (state, class, reason, id);
CREATE INDEX dead_letters_file ON trueup.dead_letters (file_id, id);

-- An event that is tried alone leaves its mark before and loses it when it is settled:
-- a mark still standing at the next try is a crash it survived.
CREATE TABLE trueup.trial_marks (
  event_id text COLLATE "C" PRIMARY KEY,
  marks    int NOT NULL DEFAULT 1,
  turn     bigint NOT NULL,
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The active worker's turn. Every settling transaction takes the row FOR SHARE with
-- its own number.
CREATE TABLE trueup.leases (
  name        text PRIMARY KEY,
  turn        bigint NOT NULL DEFAULT 0,
  paused      boolean NOT NULL DEFAULT false,
  paused_by   text NOT NULL DEFAULT '',
  paused_note text NOT NULL DEFAULT '',
  paused_at   timestamptz
);
INSERT INTO trueup.leases (name) VALUES ('worker');

CREATE TABLE trueup.audit (
  id              text COLLATE "C" PRIMARY KEY,
  at              timestamptz NOT NULL DEFAULT clock_timestamp(),
  who             text NOT NULL,
  verb            text NOT NULL,
  filter          jsonb NOT NULL DEFAULT '{}',
  count           bigint,
  note            text NOT NULL DEFAULT '',
  idempotency_key text UNIQUE
);

-- The brake: latched_at set means no unsigned deletion by anyone. The candidates of a
-- rolling day are counted by the hour, so that asking never scans files.
CREATE TABLE trueup.fuse (
  one         boolean PRIMARY KEY DEFAULT true CHECK (one),
  latched_at  timestamptz,
  why         text NOT NULL DEFAULT '',
  released_at timestamptz,
  released_by text NOT NULL DEFAULT ''
);
INSERT INTO trueup.fuse DEFAULT VALUES;
CREATE TABLE trueup.fuse_hours (
  hour       timestamptz PRIMARY KEY,
  candidates int NOT NULL
);

-- Which columns of imagekit_files the service fills, as `migrate up` found them.
CREATE TABLE trueup.mapped_columns (
  name text PRIMARY KEY,
  type text NOT NULL
);

CREATE TABLE trueup.runs (
  id                  text COLLATE "C" PRIMARY KEY,
  kind                text NOT NULL,
  state               text NOT NULL CHECK (state IN ('running', 'planned', 'applying', 'complete', 'partial', 'failed', 'cancelled')),
  started_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at         timestamptz,
  started_by          text NOT NULL DEFAULT '',
  fence               bigint,
  phase               text NOT NULL DEFAULT '',
  checkpoint          jsonb NOT NULL DEFAULT '{}',
  remote_rows         bigint,
  live_rows           bigint,
  missing             bigint NOT NULL DEFAULT 0,
  orphaned            bigint NOT NULL DEFAULT 0,
  drifted             bigint NOT NULL DEFAULT 0,
  repaired            bigint NOT NULL DEFAULT 0,
  fuse                text NOT NULL DEFAULT '',
  expected_deletions  bigint,
  account_accepted_by text NOT NULL DEFAULT '',
  identity            jsonb NOT NULL DEFAULT '{}',
  error               text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX runs_one_at_a_time ON trueup.runs ((true)) WHERE state IN ('running', 'applying');
CREATE TABLE trueup.findings (
  run_id     text COLLATE "C" NOT NULL REFERENCES trueup.runs ON DELETE CASCADE,
  file_id    text COLLATE "C" NOT NULL,
  kind       text NOT NULL CHECK (kind IN ('missing', 'orphaned', 'drifted')),
  state      text NOT NULL DEFAULT 'open',
  event_id   text,
  detail     jsonb NOT NULL DEFAULT '{}',
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (run_id, file_id)
);

-- +goose Down
DROP SCHEMA trueup CASCADE;
