-- name: write_changes
-- New and changed jobs, each with the event that tells of it, as many as wanted; columns in the order of rows.row_of.
INSERT INTO changes (
    seq, uid, id, state, user, batch, labels, create_time, end_time, end_order, held, end_reason, scheduler,
    superseded_by, project_path, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time,
    backing_off, waiting_message, unkillable, boot_ids, rest, attempts, job, is_new, revision, time, type, event
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: delete_jobs
-- Remove the records of as many jobs as wanted.
DELETE FROM jobs WHERE seq IN (?);

-- name: live_jobs
-- All that have not ended, in no order: to get them in order, SQLite would look at all that have ended as well.
SELECT seq, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time, backing_off,
    waiting_message, unkillable, boot_ids, rest, attempts, job
FROM jobs INDEXED BY jobs_state WHERE state < 5;

-- name: job_by_uid
-- One job by its uid.
SELECT seq, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time, backing_off,
    waiting_message, unkillable, boot_ids, rest, attempts, job
FROM jobs WHERE uid = ?;

-- name: jobs_by_id
-- Jobs that bear an id, newest first.
SELECT seq, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time, backing_off,
    waiting_message, unkillable, boot_ids, rest, attempts, job
FROM jobs WHERE id = ? ORDER BY seq DESC;

-- name: message_by_uid
-- One job's message, in parts, by its uid.
SELECT job, rest, attempts FROM jobs WHERE uid = ?;

-- name: message_by_id
-- The message, in parts, of the newest job that bears an id.
SELECT job, rest, attempts FROM jobs WHERE id = ? ORDER BY seq DESC LIMIT 1;

-- name: uid_by_uid
-- Whether there is a job with a uid.
SELECT uid FROM jobs WHERE uid = ?;

-- name: uid_by_id
-- The newest job that bears an id.
SELECT uid FROM jobs WHERE id = ? ORDER BY seq DESC LIMIT 1;

-- name: ended_jobs
-- Jobs that ended before a time, oldest end first.
SELECT seq, project_key, requested_by, request_id, digest, cancel_grace_period, next_attempt_time, backing_off,
    waiting_message, unkillable, boot_ids, rest, attempts, job
FROM jobs WHERE state >= 5 AND end_order < ? ORDER BY end_order LIMIT ?;

-- name: last_end
-- Where the newest end stands in the order of ends.
SELECT max(end_order) FROM jobs WHERE state >= 5;

-- name: counts
-- Number of jobs by state and whether a retry superseded them.
SELECT state, superseded, number FROM counts;

-- name: owners_in
-- Whose jobs have these ids.
SELECT id, uid, user FROM jobs WHERE id IN (?);

-- name: count_ended
-- Number of ended jobs.
SELECT sum(number) FROM counts WHERE state >= 5;

-- name: insert_requests
-- Remember which jobs requests made, as many rows as wanted.
INSERT INTO requests (seq, request_id, principal, uid, digest, time) VALUES (?, ?, ?, ?, ?, ?);

-- name: requests_in
-- The jobs that requests made, of as many request_ids as wanted; each caller may have used them.
SELECT principal, request_id, uid, digest FROM requests WHERE request_id IN (?);

-- name: request
-- The job that a request of a caller made.
SELECT uid, digest FROM requests WHERE principal = ? AND request_id = ?;

-- name: oldest_requests
-- The oldest requests on record, to forget those that are old enough.
SELECT seq, time FROM requests ORDER BY seq LIMIT ?;

-- name: delete_requests
-- Forget requests from the beginning.
DELETE FROM requests WHERE seq <= ?;
