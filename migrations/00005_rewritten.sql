-- +goose Up
-- Whether a version after the first was seen: an answer that shows the first one again
-- opens no claims. Of files known before this nobody knows, and their next change tells.
ALTER TABLE trueup.file_state ADD COLUMN rewritten boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE trueup.file_state DROP COLUMN rewritten;
