-- name: insert_service
-- The one row of a new store.
INSERT INTO service (one, store_id, revision, floor, last_seq, paused, limits, clean)
VALUES (1, ?, 0, 0, 0, 0, NULL, 0);

-- name: service
-- The one row.
SELECT store_id, revision, last_seq, paused, limits, age_time, clean FROM service;

-- name: set_counters
-- Newest revision and job number, once for each commit.
UPDATE service SET revision = ?, last_seq = ?;

-- name: set_paused
-- Whether the queue is paused.
UPDATE service SET paused = ?;

-- name: set_limits
-- Limits in force.
UPDATE service SET limits = ?;

-- name: set_age_time
-- How far the clock is that ages are measured by.
UPDATE service SET age_time = ?;

-- name: set_clean
-- Whether the service stopped in order.
UPDATE service SET clean = ?;

-- name: probe
-- Changes nothing, and yet has to be written.
UPDATE service SET revision = revision;

-- name: revision
-- Newest revision.
SELECT revision FROM service;

-- name: floor
-- Events up to here are gone.
SELECT floor FROM service;

-- name: set_floor
-- Events up to here are gone.
UPDATE service SET floor = ?;

-- name: insert_events
-- Changes, as many rows as wanted.
INSERT INTO events (revision, time, type, uid, event) VALUES (?, ?, ?, ?, ?);

-- name: events_of
-- Events of one job, among those after a revision and up to another one.
SELECT revision, event FROM events WHERE revision > ? AND revision <= ? AND uid = ? ORDER BY revision LIMIT ?;

-- name: events_after
-- Changes after a revision.
SELECT revision, event FROM events WHERE revision > ? ORDER BY revision LIMIT ?;

-- name: newest_time
-- Time of the newest event.
SELECT time FROM events ORDER BY revision DESC LIMIT 1;

-- name: oldest_events
-- The oldest events on record, to cut those that are old enough.
SELECT revision, time FROM events ORDER BY revision LIMIT ?;

-- name: delete_events
-- Cut the log from its beginning.
DELETE FROM events WHERE revision <= ?;
