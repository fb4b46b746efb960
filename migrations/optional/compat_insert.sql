-- Opt-in (migrate up --compat-insert): an application that still inserts its own row
-- meets ours without an error. Whoever holds the file's line in file_state goes first:
-- the trigger takes it, or tries to write it, which waits for a writer of ours that is
-- not committed yet; only then, with a fresh snapshot, it looks for the row.
CREATE OR REPLACE FUNCTION trueup.compat_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  standing text;
BEGIN
  IF current_setting('trueup.writer', true) = 'on' THEN
    RETURN NEW;
  END IF;
  INSERT INTO trueup.file_state (file_id, seen) VALUES (NEW.file_id, 0) ON CONFLICT (file_id) DO NOTHING;
  IF FOUND THEN
    -- Nobody knew the file and nobody is writing it: the line was only the queue's head.
    DELETE FROM trueup.file_state s WHERE s.file_id = NEW.file_id;
  ELSE
    PERFORM 1 FROM trueup.file_state s WHERE s.file_id = NEW.file_id FOR UPDATE;
  END IF;
  SELECT f.user_id INTO standing FROM public.imagekit_files f WHERE f.file_id = NEW.file_id;
  IF NOT FOUND THEN
    RETURN NEW;
  END IF;
  IF coalesce(NEW.user_id, '') <> '' THEN
    UPDATE trueup.file_state s
      SET owner = NEW.user_id, owner_kind = 'adopted', owner_at = NULL, owner_event = NULL,
          seen = greatest(s.seen, nextval('trueup.fence'))
      WHERE s.file_id = NEW.file_id AND s.owner_kind = '';
    IF FOUND THEN
      UPDATE public.imagekit_files f SET user_id = NEW.user_id WHERE f.file_id = NEW.file_id;
      INSERT INTO trueup.ledger (id, file_id, source, origin, kind, user_id, outcome, reason, detail)
        VALUES ('compat-' || replace(gen_random_uuid()::text, '-', ''), NEW.file_id, 'application', 'application', 'insert',
                NEW.user_id, 'applied', 'adopted', jsonb_build_object('by', session_user));
    END IF;
  END IF;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION trueup.compat_insert() FROM PUBLIC;
CREATE OR REPLACE TRIGGER trueup_compat_insert BEFORE INSERT ON public.imagekit_files
  FOR EACH ROW EXECUTE FUNCTION trueup.compat_insert();
