-- What one user may know of one report: the only thing the ingest role may call. The
-- columns of imagekit_files are read through to_jsonb, so that an application may drop
-- one without breaking it; of one that is the application's own nothing is shown.
CREATE OR REPLACE FUNCTION trueup.report(event_id text, caller text)
RETURNS TABLE (state text, reason text, file jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  line  record;
  own   text;
  letter text;
  shown jsonb;
BEGIN
  SELECT l.file_id, l.end_kind, l.user_id INTO line FROM trueup.ledger l WHERE l.id = $1 AND l.user_id = $2;
  IF FOUND AND line.end_kind = 'dead' THEN
    -- A dead letter is not an answer; the event that replays it may have brought one. One
    -- that an operator discarded, or that is past its retention, will never have one.
    SELECT d.state INTO letter FROM trueup.dead_letters d WHERE d.event_id = $1;
    IF NOT FOUND OR letter = 'discarded' THEN
      RETURN QUERY SELECT 'rejected', 'not_claimable', NULL::jsonb;
      RETURN;
    END IF;
    SELECT l.file_id, l.end_kind, l.user_id INTO line
      FROM trueup.dead_letters d JOIN trueup.ledger l ON l.id = d.replay_event
      WHERE d.event_id = $1 AND d.state = 'resolved' AND l.end_kind <> 'dead';
  END IF;
  IF NOT FOUND OR $2 = '' THEN
    RETURN QUERY SELECT 'pending', '', NULL::jsonb;
    RETURN;
  END IF;
  SELECT s.owner INTO own FROM trueup.file_state s WHERE s.file_id = line.file_id;
  IF line.end_kind NOT IN ('done', 'superseded') OR own IS DISTINCT FROM $2 THEN
    RETURN QUERY SELECT 'rejected', 'not_claimable', NULL::jsonb;
    RETURN;
  END IF;
  SELECT jsonb_object_agg(e.key, e.value) INTO shown
    FROM public.imagekit_files f, jsonb_each(to_jsonb(f)) e
    WHERE f.file_id = line.file_id AND f.user_id = $2
      AND (e.key = 'file_id' OR e.key IN (SELECT m.name FROM trueup.mapped_columns m));
  IF shown IS NOT NULL THEN
    shown := jsonb_strip_nulls(jsonb_build_object(
      'fileId', shown->'file_id', 'url', shown->'file_url', 'name', shown->'file_name', 'path', shown->'file_path',
      'type', shown->'file_type', 'mime', shown->'mime', 'size', shown->'size_bytes',
      'width', shown->'width', 'height', shown->'height', 'thumbnailUrl', shown->'thumbnail_url',
      'tags', shown->'tags', 'customMetadata', shown->'custom_metadata', 'isPrivate', shown->'is_private',
      'createdAt', shown->'upload_timestamp', 'updatedAt', shown->'remote_updated_at'));
  END IF;
  RETURN QUERY SELECT 'verified', '', shown;
END $$;
REVOKE ALL ON FUNCTION trueup.report(text, text) FROM PUBLIC;
