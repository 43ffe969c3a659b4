-- A commit of changed jobs is one statement, with fewer indexes, and ages are measured by a clock of the store's own.

-- That an id is live once only is seen to by the writer, who has all live jobs in memory.
DROP INDEX jobs_live_id;
DROP INDEX jobs_batch;
CREATE INDEX jobs_batch ON jobs (batch) WHERE batch <> '';

-- The time by which the age of records is measured: see store/retention.py. 0: not set yet.
ALTER TABLE service ADD COLUMN age_time REAL NOT NULL DEFAULT 0;

-- What is inserted here is a changed job with the event that tells of it. Each statement of a commit gives the
-- interpreter's lock away and has to get it back from a busy event loop, which costs more than the statement.
CREATE VIEW changes AS
SELECT seq, uid, id, state, user, batch, project, labels, create_time, end_time, project_path, project_key,
    request_id, digest, cancel_grace, backing_off, unkillable, boot_ids, job,
    0 AS is_new, 0 AS revision, 0.0 AS time, 0 AS type, NULL AS event
FROM jobs;

CREATE TRIGGER changes_inserted INSTEAD OF INSERT ON changes BEGIN
    INSERT INTO jobs (
        seq, uid, id, state, user, batch, project, labels, create_time, end_time, project_path, project_key,
        request_id, digest, cancel_grace, backing_off, unkillable, boot_ids, job
    ) VALUES (
        NEW.seq, NEW.uid, NEW.id, NEW.state, NEW.user, NEW.batch, NEW.project, NEW.labels, NEW.create_time,
        NEW.end_time, NEW.project_path, NEW.project_key, NEW.request_id, NEW.digest, NEW.cancel_grace,
        NEW.backing_off, NEW.unkillable, NEW.boot_ids, NEW.job
    )
    ON CONFLICT (seq) DO UPDATE SET state = excluded.state, end_time = excluded.end_time,
        cancel_grace = excluded.cancel_grace, backing_off = excluded.backing_off,
        unkillable = excluded.unkillable, boot_ids = excluded.boot_ids, job = excluded.job;
    INSERT INTO requests (seq, request_id, uid, digest, time)
    SELECT NEW.seq, NEW.request_id, NEW.uid, NEW.digest, NEW.time WHERE NEW.is_new AND NEW.request_id <> '';
    INSERT INTO events (revision, time, type, uid, event)
    VALUES (NEW.revision, NEW.time, NEW.type, NEW.uid, NEW.event);
    UPDATE service SET revision = NEW.revision, last_seq = max(last_seq, NEW.seq);
END;
