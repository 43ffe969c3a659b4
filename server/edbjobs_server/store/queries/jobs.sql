-- name: write_changes
-- New and changed jobs, each with the event that tells of it, as many as wanted; columns in the order of rows.row_of.
INSERT INTO changes (
    seq, uid, id, state, user, batch, project, labels, create_time, end_time, project_path, project_key,
    request_id, digest, cancel_grace, backing_off, unkillable, boot_ids, job, is_new, revision, time, type, event
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_jobs
-- Remove the records of as many jobs as wanted.
DELETE FROM jobs WHERE seq IN (?);

-- name: live_jobs
-- All that have not ended, in no order: to get them in order, SQLite would look at all that have ended as well.
SELECT seq, project_path, project_key, request_id, digest, cancel_grace, backing_off, unkillable, boot_ids,
    job
FROM jobs INDEXED BY jobs_state WHERE state < 5;

-- name: job_by_uid
-- One job by its uid.
SELECT seq, project_path, project_key, request_id, digest, cancel_grace, backing_off, unkillable, boot_ids,
    job
FROM jobs WHERE uid = ?;

-- name: jobs_by_id
-- Jobs that bear an id, newest first.
SELECT seq, project_path, project_key, request_id, digest, cancel_grace, backing_off, unkillable, boot_ids,
    job
FROM jobs WHERE id = ? ORDER BY seq DESC;

-- name: message_by_uid
-- One job's message by its uid.
SELECT job FROM jobs WHERE uid = ?;

-- name: message_by_id
-- The message of the newest job that bears an id.
SELECT job FROM jobs WHERE id = ? ORDER BY seq DESC LIMIT 1;

-- name: ended_jobs
-- Jobs that ended before a time, oldest end first.
SELECT seq, project_path, project_key, request_id, digest, cancel_grace, backing_off, unkillable, boot_ids,
    job
FROM jobs WHERE state >= 5 AND end_time < ? ORDER BY end_time LIMIT ?;

-- name: last_end
-- Where the newest end stands in the order of ends.
SELECT max(end_time) FROM jobs WHERE state >= 5;

-- name: count_by_state
-- Number of jobs in each state.
SELECT state, number FROM counts;

-- name: count_ended
-- Number of ended jobs.
SELECT sum(number) FROM counts WHERE state >= 5;

-- name: insert_requests
-- Remember which jobs requests made, as many rows as wanted.
INSERT INTO requests (seq, request_id, uid, digest, time) VALUES (?, ?, ?, ?, ?);

-- name: requests_in
-- The jobs that requests made, of as many requests as wanted.
SELECT request_id, uid, digest FROM requests WHERE request_id IN (?);

-- name: oldest_requests
-- The oldest requests on record, to forget those that are old enough.
SELECT seq, time FROM requests ORDER BY seq LIMIT ?;

-- name: delete_requests
-- Forget requests from the beginning.
DELETE FROM requests WHERE seq <= ?;
