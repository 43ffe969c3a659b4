-- The store's first schema; 1 and 2 were of stores from before the contract. States are the numbers of
-- edbjobs.v1.JobState; 5 and above have ended.

-- One row: what belongs to the service as a whole.
CREATE TABLE service (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store_id TEXT NOT NULL,
    revision INTEGER NOT NULL,   -- newest revision given
    floor INTEGER NOT NULL,      -- events up to here were cut from the log
    last_seq INTEGER NOT NULL,   -- newest number given to a job; never given again
    paused INTEGER NOT NULL,
    limits BLOB,                 -- edbjobs.v1.Limits; NULL: never set
    clean INTEGER NOT NULL,      -- the last service stopped in order
    age_time REAL NOT NULL DEFAULT 0  -- by which the age of records is measured: see store/retention.py. 0: not set yet
);

-- That an id is live once only is seen to by the writer, who has all live jobs in memory.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    user TEXT NOT NULL,
    batch TEXT NOT NULL,
    labels TEXT NOT NULL,        -- one JSON pair a line
    create_time REAL NOT NULL,
    end_time REAL,
    end_order REAL,              -- as end_time, but never before an end that was recorded earlier
    held INTEGER NOT NULL,
    end_reason INTEGER NOT NULL, -- edbjobs.v1.EndReason
    scheduler TEXT NOT NULL,
    superseded_by TEXT NOT NULL, -- uid of the job that retries it
    project_path TEXT NOT NULL,
    project_key TEXT NOT NULL,   -- from here on: what edbjobs.v1.Job does not tell
    requested_by TEXT NOT NULL,  -- whose request_id it is: edbjobs.v1.Principal.name
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    cancel_grace_period REAL,
    next_attempt_time REAL NOT NULL,
    backing_off INTEGER NOT NULL,
    waiting_message TEXT NOT NULL,
    unkillable TEXT NOT NULL,    -- pids, separated by spaces
    boot_ids TEXT NOT NULL,      -- one line for each attempt
    rest BLOB NOT NULL,          -- edbjobs.v1.Job in three parts: see contract/codec.py
    attempts BLOB NOT NULL,
    job BLOB NOT NULL
);
CREATE UNIQUE INDEX jobs_uid ON jobs (uid);
CREATE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_user ON jobs (user);
CREATE INDEX jobs_batch ON jobs (batch) WHERE batch <> '';
CREATE INDEX jobs_project ON jobs (project_path);
CREATE INDEX jobs_create_time ON jobs (create_time);
CREATE INDEX jobs_ended ON jobs (end_order) WHERE state >= 5;

-- Number of jobs by state, and by whether a retry superseded them: a page's total without counting.
CREATE TABLE counts (
    state INTEGER NOT NULL,
    superseded INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (state, superseded)
) WITHOUT ROWID;
INSERT INTO counts VALUES (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0), (6, 0, 0), (7, 0, 0);
INSERT INTO counts VALUES (5, 1, 0), (6, 1, 0), (7, 1, 0);

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    UPDATE counts SET number = number + 1 WHERE state = NEW.state AND superseded = (NEW.superseded_by <> '');
END;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state, superseded_by ON jobs
WHEN OLD.state <> NEW.state OR OLD.superseded_by <> NEW.superseded_by BEGIN
    UPDATE counts SET number = number - 1 WHERE state = OLD.state AND superseded = (OLD.superseded_by <> '');
    UPDATE counts SET number = number + 1 WHERE state = NEW.state AND superseded = (NEW.superseded_by <> '');
END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
    UPDATE counts SET number = number - 1 WHERE state = OLD.state AND superseded = (OLD.superseded_by <> '');
END;

-- Which job a request made. Outlives the job, so that a late repetition finds out.
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY,     -- the job's: order of time
    request_id TEXT NOT NULL,
    principal TEXT NOT NULL,     -- of the caller: each has request_ids of its own
    uid TEXT NOT NULL,
    digest BLOB NOT NULL,
    time REAL NOT NULL,
    UNIQUE (request_id, principal)
);

CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    type INTEGER NOT NULL,
    uid TEXT NOT NULL,           -- empty: an event of the service
    event BLOB NOT NULL          -- edbjobs.v1.WatchEvent
);

-- What is inserted here is a changed job with the event that tells of it. Each statement of a commit gives the
-- interpreter's lock away and has to get it back from a busy event loop, which costs more than the statement.
CREATE VIEW changes AS
SELECT seq, uid, id, state, user, batch, labels, create_time, end_time, end_order, held, end_reason, scheduler,
    superseded_by, project_path, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time,
    backing_off, waiting_message, unkillable, boot_ids, rest, attempts, job,
    0 AS is_new, 0 AS revision, 0.0 AS time, 0 AS type, NULL AS event
FROM jobs;

CREATE TRIGGER changes_inserted INSTEAD OF INSERT ON changes BEGIN
    INSERT INTO jobs (
        seq, uid, id, state, user, batch, labels, create_time, end_time, end_order, held, end_reason, scheduler,
        superseded_by, project_path, project_key, requested_by, request_id, digest, cancel_grace_period,
        next_attempt_time, backing_off, waiting_message, unkillable, boot_ids, rest, attempts, job
    ) VALUES (
        NEW.seq, NEW.uid, NEW.id, NEW.state, NEW.user, NEW.batch, NEW.labels, NEW.create_time, NEW.end_time,
        NEW.end_order, NEW.held, NEW.end_reason, NEW.scheduler, NEW.superseded_by, NEW.project_path, NEW.project_key,
        NEW.requested_by, NEW.request_id, NEW.digest, NEW.cancel_grace_period, NEW.next_attempt_time, NEW.backing_off,
        NEW.waiting_message, NEW.unkillable, NEW.boot_ids, NEW.rest, NEW.attempts, NEW.job
    )
    -- The place in the order of ends stays when a job that has ended is changed: a retry supersedes it.
    ON CONFLICT (seq) DO UPDATE SET state = excluded.state, end_time = excluded.end_time,
        end_order = ifnull(end_order, excluded.end_order), held = excluded.held, end_reason = excluded.end_reason,
        superseded_by = excluded.superseded_by, cancel_grace_period = excluded.cancel_grace_period,
        next_attempt_time = excluded.next_attempt_time, backing_off = excluded.backing_off,
        waiting_message = excluded.waiting_message, unkillable = excluded.unkillable, boot_ids = excluded.boot_ids,
        attempts = excluded.attempts, job = excluded.job;
    INSERT INTO requests (seq, request_id, principal, uid, digest, time)
    SELECT NEW.seq, NEW.request_id, NEW.requested_by, NEW.uid, NEW.digest, NEW.time
    WHERE NEW.is_new AND NEW.request_id <> '';
    INSERT INTO events (revision, time, type, uid, event)
    VALUES (NEW.revision, NEW.time, NEW.type, NEW.uid, NEW.event);
    UPDATE service SET revision = NEW.revision, last_seq = max(last_seq, NEW.seq);
END;
