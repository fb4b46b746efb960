-- Four group roles. The settings stand on the roles themselves, because a pooled
-- connection may not carry them; PostgreSQL does not hand a group's settings on to its
-- members, so members get them too. Where this user may not create roles, that is said
-- and everything else goes on.
DO $$
DECLARE
  r text;
  m record;
BEGIN
  FOREACH r IN ARRAY ARRAY['trueup_migrate', 'trueup_worker', 'trueup_ingest', 'trueup_plan'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', r);
      EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL; -- another database of this server was quicker
        WHEN insufficient_privilege THEN
          RAISE WARNING 'role % was not created: % may not create roles; ask an administrator to create it (NOLOGIN) and run migrate up again', r, current_user;
      END;
    END IF;
  END LOOP;
  FOR m IN
    WITH RECURSIVE ours AS (
      SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolname IN ('trueup_worker', 'trueup_ingest', 'trueup_plan')
      UNION
      SELECT u.oid, u.rolname FROM ours o JOIN pg_catalog.pg_auth_members g ON g.roleid = o.oid
        JOIN pg_catalog.pg_roles u ON u.oid = g.member WHERE NOT u.rolsuper AND NOT u.rolcreaterole)
    SELECT o.rolname FROM ours o JOIN pg_catalog.pg_roles u USING (rolname)
    WHERE NOT coalesce(u.rolconfig, '{}') @> ARRAY['statement_timeout=30s', 'lock_timeout=5s', 'idle_in_transaction_session_timeout=30s']
  LOOP
    BEGIN
      EXECUTE format('ALTER ROLE %I SET statement_timeout = ''30s''', m.rolname);
      EXECUTE format('ALTER ROLE %I SET lock_timeout = ''5s''', m.rolname);
      EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''30s''', m.rolname);
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'timeouts were not set on role %: % may not alter it', m.rolname, current_user;
    END;
  END LOOP;
END $$;

DO $$
DECLARE
  have name[] := ARRAY(SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE 'trueup\_%');
BEGIN
  IF 'trueup_migrate' = ANY(have) THEN
    GRANT USAGE, CREATE ON SCHEMA trueup TO trueup_migrate;
    GRANT ALL ON ALL TABLES IN SCHEMA trueup TO trueup_migrate;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA trueup TO trueup_migrate;
    GRANT ALL ON public.imagekit_files TO trueup_migrate;
  END IF;
  IF 'trueup_worker' = ANY(have) THEN
    GRANT USAGE ON SCHEMA trueup TO trueup_worker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA trueup TO trueup_worker;
    REVOKE INSERT, UPDATE, DELETE ON trueup.mapped_columns, trueup.goose_version FROM trueup_worker;
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA trueup TO trueup_worker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON public.imagekit_files TO trueup_worker;
    GRANT EXECUTE ON FUNCTION trueup.report(text, text) TO trueup_worker;
  END IF;
  IF 'trueup_ingest' = ANY(have) THEN
    GRANT USAGE ON SCHEMA trueup TO trueup_ingest;
    GRANT EXECUTE ON FUNCTION trueup.report(text, text) TO trueup_ingest;
  END IF;
  IF 'trueup_plan' = ANY(have) THEN
    GRANT USAGE ON SCHEMA trueup TO trueup_plan;
    GRANT SELECT ON ALL TABLES IN SCHEMA trueup TO trueup_plan;
    GRANT SELECT ON public.imagekit_files TO trueup_plan;
    GRANT INSERT, UPDATE, DELETE ON trueup.runs, trueup.findings TO trueup_plan;
  END IF;
  -- So that the worker can step down to it for a plan.
  IF 'trueup_plan' = ANY(have) AND 'trueup_worker' = ANY(have) AND NOT pg_has_role('trueup_worker', 'trueup_plan', 'MEMBER') THEN
    BEGIN
      GRANT trueup_plan TO trueup_worker;
    EXCEPTION
      WHEN unique_violation OR internal_error THEN NULL; -- another database of this server was quicker
      WHEN insufficient_privilege THEN
        RAISE WARNING 'trueup_plan was not granted to trueup_worker: % may not; plans will run with the worker''s own rights', current_user;
    END;
  END IF;
END $$;

-- A table of the guide has a serial or an identity; both need their sequence.
DO $$
DECLARE
  s record;
  r text;
BEGIN
  FOR s IN
    SELECT DISTINCT d.objid::regclass AS seq FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
    WHERE d.refobjid = 'public.imagekit_files'::regclass AND d.deptype IN ('a', 'i')
  LOOP
    FOR r IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('trueup_worker', 'trueup_migrate') LOOP
      EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO %I', s.seq, r);
    END LOOP;
  END LOOP;
END $$;
