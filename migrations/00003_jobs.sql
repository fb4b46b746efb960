-- +goose Up
-- Everything here is added beside what stood there: the version before goes on working.
ALTER TABLE trueup.dead_letters
  ADD COLUMN masked    jsonb NOT NULL DEFAULT '[]', -- spans of the body that held a secret of ours
  ADD COLUMN import_id text;                        -- the import it last came with
CREATE INDEX dead_letters_import ON trueup.dead_letters (import_id, id) WHERE import_id IS NOT NULL;
CREATE INDEX dead_letters_age ON trueup.dead_letters (class, updated_at);

-- What an event on trial was doing when the watchdog ended the process.
ALTER TABLE trueup.trial_marks ADD COLUMN stack text NOT NULL DEFAULT '';

-- One operator verb at work on many items. `upto` is the greatest dead letter when it
-- began, `position` the last one it has taken.
CREATE TABLE trueup.jobs (
  id          text COLLATE "C" PRIMARY KEY,
  verb        text NOT NULL CHECK (verb IN ('replay', 'discard', 'recheck')),
  filter      jsonb NOT NULL DEFAULT '{}',
  who         text NOT NULL,
  note        text NOT NULL DEFAULT '',
  key         text,
  request     bytea NOT NULL, -- hash of filter and files: the same key must mean the same
  state       text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled', 'failed')),
  upto        text COLLATE "C" NOT NULL DEFAULT '',
  position    text COLLATE "C" NOT NULL DEFAULT '',
  total       bigint NOT NULL DEFAULT 0,
  done        bigint NOT NULL DEFAULT 0,
  skipped     bigint NOT NULL DEFAULT 0,
  waiting     text NOT NULL DEFAULT '',
  error       text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX jobs_key ON trueup.jobs (who, verb, key);
CREATE INDEX jobs_running ON trueup.jobs (id) WHERE state = 'running';

-- One event that a job sends: its id is drawn and committed before it is published, so
-- that a crash in between can only send the same event twice.
CREATE TABLE trueup.job_items (
  job_id       text COLLATE "C" NOT NULL REFERENCES trueup.jobs ON DELETE CASCADE,
  item         text COLLATE "C" NOT NULL, -- a dead letter's id; a file's for recheck
  event_id     text COLLATE "C" NOT NULL,
  taken_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  published_at timestamptz,
  end_kind     text NOT NULL DEFAULT '', -- written by the transaction that settles it
  reason       text NOT NULL DEFAULT '',
  ended_at     timestamptz,
  PRIMARY KEY (job_id, item)
);
CREATE INDEX job_items_event ON trueup.job_items (event_id);
CREATE INDEX job_items_item ON trueup.job_items (item);
CREATE INDEX job_items_unsettled ON trueup.job_items (job_id, item) WHERE end_kind = '';
CREATE INDEX job_items_unpublished ON trueup.job_items (job_id, item) WHERE published_at IS NULL;

-- A key belongs to its caller and verb. idempotency_key, unique over everybody, stays for
-- the version before.
ALTER TABLE trueup.audit
  ADD COLUMN key    text,
  ADD COLUMN job_id text;
CREATE UNIQUE INDEX audit_key ON trueup.audit (who, verb, key);
CREATE INDEX audit_file ON trueup.audit ((filter->>'file')) WHERE filter ? 'file';

-- What retention has deleted, so that the sums over all events stay true.
CREATE TABLE trueup.expired_counts (
  place text NOT NULL CHECK (place IN ('dead_letters', 'ledger', 'tombstones')),
  state text NOT NULL, -- of the dead letter, or the ledger line's end
  class text NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (place, state, class)
);
CREATE INDEX file_state_gone ON trueup.file_state (gone_at) WHERE gone_at IS NOT NULL;

-- +goose Down
DROP INDEX trueup.file_state_gone;
DROP TABLE trueup.expired_counts;
DROP INDEX trueup.audit_file, trueup.audit_key;
ALTER TABLE trueup.audit DROP COLUMN key, DROP COLUMN job_id;
DROP TABLE trueup.job_items;
DROP TABLE trueup.jobs;
ALTER TABLE trueup.trial_marks DROP COLUMN stack;
DROP INDEX trueup.dead_letters_age, trueup.dead_letters_import;
ALTER TABLE trueup.dead_letters DROP COLUMN masked, DROP COLUMN import_id;
