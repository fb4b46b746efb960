-- +goose Up
-- What a run says of itself; nothing wrote to runs before.
ALTER TABLE trueup.runs
  DROP COLUMN missing, DROP COLUMN orphaned, DROP COLUMN drifted, DROP COLUMN repaired,
  ADD COLUMN note       text NOT NULL DEFAULT '',
  ADD COLUMN key        text,
  ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ADD COLUMN begun      pg_snapshot, -- rows of transactions that had not ended then may have come during the run
  ADD COLUMN calls      bigint NOT NULL DEFAULT 0,
  ADD COLUMN whole      boolean NOT NULL DEFAULT false,
  ADD COLUMN same       bigint NOT NULL DEFAULT 0,
  ADD COLUMN moved      bigint NOT NULL DEFAULT 0,
  ADD COLUMN unowned    bigint NOT NULL DEFAULT 0,
  ADD COLUMN candidates bigint NOT NULL DEFAULT 0,
  ADD COLUMN notes      jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN waiting    text NOT NULL DEFAULT '',
  ADD COLUMN found      jsonb; -- the findings' counts, once clean-up deletes them; until then they are counted
CREATE UNIQUE INDEX runs_key ON trueup.runs (started_by, key);

ALTER TABLE trueup.findings DROP CONSTRAINT findings_kind_check;
ALTER TABLE trueup.findings RENAME COLUMN state TO status;
ALTER TABLE trueup.findings
  ALTER COLUMN status SET DEFAULT 'found',
  ADD CHECK (kind IN ('missing', 'drifted', 'orphaned', 'unowned', 'adopted')),
  ADD CHECK (status IN ('found', 'repaired', 'skipped', 'refused')),
  ADD COLUMN reason       text NOT NULL DEFAULT '',
  ADD COLUMN evidence     jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN found_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  ADD COLUMN published_at timestamptz,
  ADD COLUMN ended_at     timestamptz; -- when the event came to its end
CREATE INDEX findings_file ON trueup.findings (file_id);
CREATE INDEX findings_event ON trueup.findings (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX findings_open ON trueup.findings (run_id, file_id) WHERE status = 'found' AND event_id IS NULL;
CREATE INDEX findings_fused ON trueup.findings (run_id, file_id) WHERE status = 'refused' AND reason = 'fuse_latched';
CREATE INDEX findings_unsettled ON trueup.findings (run_id) WHERE event_id IS NOT NULL AND ended_at IS NULL;

-- Which run latched the fuse; which account was confirmed last, and why it is doubted.
ALTER TABLE trueup.fuse
  ADD COLUMN run_id             text COLLATE "C",
  ADD COLUMN account            jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN account_doubt      text NOT NULL DEFAULT '',
  ADD COLUMN account_doubted_at timestamptz,
  ADD COLUMN account_run        text COLLATE "C";

-- How far polling has come.
CREATE TABLE trueup.poll (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  position timestamptz
);
INSERT INTO trueup.poll DEFAULT VALUES;

-- +goose Down
DROP TABLE trueup.poll;
ALTER TABLE trueup.fuse DROP COLUMN run_id, DROP COLUMN account, DROP COLUMN account_doubt, DROP COLUMN account_doubted_at, DROP COLUMN account_run;
DROP INDEX trueup.findings_unsettled, trueup.findings_fused, trueup.findings_open, trueup.findings_event, trueup.findings_file;
TRUNCATE trueup.findings;
ALTER TABLE trueup.findings
  DROP CONSTRAINT findings_kind_check, DROP CONSTRAINT findings_status_check,
  DROP COLUMN reason, DROP COLUMN evidence, DROP COLUMN found_at, DROP COLUMN published_at, DROP COLUMN ended_at;
ALTER TABLE trueup.findings ALTER COLUMN status SET DEFAULT 'open';
ALTER TABLE trueup.findings RENAME COLUMN status TO state;
ALTER TABLE trueup.findings ADD CHECK (kind IN ('missing', 'orphaned', 'drifted'));
DROP INDEX trueup.runs_key;
ALTER TABLE trueup.runs
  DROP COLUMN note, DROP COLUMN key, DROP COLUMN changed_at, DROP COLUMN begun, DROP COLUMN calls, DROP COLUMN whole, DROP COLUMN same,
  DROP COLUMN moved, DROP COLUMN unowned, DROP COLUMN candidates, DROP COLUMN notes, DROP COLUMN waiting, DROP COLUMN found,
  ADD COLUMN missing bigint NOT NULL DEFAULT 0, ADD COLUMN orphaned bigint NOT NULL DEFAULT 0,
  ADD COLUMN drifted bigint NOT NULL DEFAULT 0, ADD COLUMN repaired bigint NOT NULL DEFAULT 0;
