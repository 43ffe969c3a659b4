-- The store's first schema. States are the numbers of edbjobs.v1.JobState; 5 and above have ended.

-- One row: what belongs to the service as a whole.
CREATE TABLE service (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store_id TEXT NOT NULL,
    revision INTEGER NOT NULL,   -- newest revision given
    floor INTEGER NOT NULL,      -- events up to here were cut from the log
    last_seq INTEGER NOT NULL,   -- newest number given to a job; never given again
    paused INTEGER NOT NULL,
    limits BLOB,                 -- edbjobs.v1.Limits; NULL: never set
    clean INTEGER NOT NULL       -- the last service stopped in order
);

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    user TEXT NOT NULL,
    batch TEXT NOT NULL,
    project TEXT NOT NULL,       -- path as submitted, without suffix: what filters compare
    labels TEXT NOT NULL,        -- one JSON pair a line
    create_time REAL NOT NULL,
    end_time REAL,
    project_path TEXT NOT NULL,  -- from here on: what edbjobs.v1.Job does not tell
    project_key TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    cancel_grace REAL,
    backing_off INTEGER NOT NULL,
    unkillable TEXT NOT NULL,    -- pids, separated by spaces
    boot_ids TEXT NOT NULL,      -- one line for each attempt
    job BLOB NOT NULL            -- edbjobs.v1.Job
);
CREATE UNIQUE INDEX jobs_uid ON jobs (uid);
CREATE UNIQUE INDEX jobs_live_id ON jobs (id) WHERE state < 5;
CREATE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_user ON jobs (user);
CREATE INDEX jobs_batch ON jobs (batch);
CREATE INDEX jobs_project ON jobs (project);
CREATE INDEX jobs_create_time ON jobs (create_time);
CREATE INDEX jobs_ended ON jobs (end_time) WHERE state >= 5;

-- Number of jobs by state: a page's total without counting.
CREATE TABLE counts (state INTEGER PRIMARY KEY, number INTEGER NOT NULL);
INSERT INTO counts VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0);

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    UPDATE counts SET number = number + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
    UPDATE counts SET number = number - 1 WHERE state = OLD.state;
    UPDATE counts SET number = number + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
    UPDATE counts SET number = number - 1 WHERE state = OLD.state;
END;

-- Which job a request made. Outlives the job, so that a late repetition finds out.
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY,     -- the job's: order of time
    request_id TEXT NOT NULL UNIQUE,
    uid TEXT NOT NULL,
    digest BLOB NOT NULL,
    time REAL NOT NULL
);

CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    type INTEGER NOT NULL,
    uid TEXT NOT NULL,           -- empty: an event of the service
    event BLOB NOT NULL          -- edbjobs.v1.Event
);
