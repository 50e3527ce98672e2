-- What deliveries came to: attempts, dead letters, and the last ones that were received.

-- Couriers remember what they have seen of a thread: nobody searches for it any more. With a million rows, an index whose
-- entries lie all over the place made each commit a quarter dearer.
DROP INDEX outbox_thread;

ALTER TABLE endpoints ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;
-- How many rows it has in `received`.
ALTER TABLE endpoints ADD COLUMN received INTEGER NOT NULL DEFAULT 0;

-- The attempts so far, JSON; none is NULL.
ALTER TABLE outbox ADD COLUMN log TEXT;
ALTER TABLE outbox ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0;

-- `of` is the message of a range, by its sequence; else 0.
CREATE TABLE received (
  endpoint INTEGER NOT NULL,
  id INTEGER NOT NULL,
  of INTEGER NOT NULL,
  thread INTEGER NOT NULL,
  webhook_id TEXT NOT NULL,
  what TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  rejected INTEGER NOT NULL,
  replayed INTEGER NOT NULL,
  log TEXT NOT NULL,
  PRIMARY KEY (endpoint, id, of)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
  endpoint INTEGER NOT NULL,
  id INTEGER NOT NULL,
  of INTEGER NOT NULL,
  thread INTEGER NOT NULL,
  webhook_id TEXT NOT NULL,
  what TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  died_at INTEGER NOT NULL,
  log TEXT,
  PRIMARY KEY (endpoint, id, of)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letters_died_at ON dead_letters (died_at);
CREATE INDEX dead_letters_webhook_id ON dead_letters (endpoint, webhook_id);
CREATE INDEX dead_letters_thread ON dead_letters (endpoint, thread, id);
