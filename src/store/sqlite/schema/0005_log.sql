-- What a commit costs is the pages that it touches. What entries say is appended, so that the messages of many threads share
-- pages, and a page is not divided again and again because something is put into its middle. Where a thread's entries are, and
-- what the thread is now, lie side by side, so that both are one page.

-- In the order of commits.
CREATE TABLE bodies (
  id INTEGER PRIMARY KEY,
  entry TEXT NOT NULL
) STRICT;

-- One integer key for (thread, sequence). Behind a thread's entries, under the sequence 0xffffffff, its head. Only the first
-- entry of a commit names the commit.
CREATE TABLE log (
  id INTEGER PRIMARY KEY,
  thread INTEGER AS (id >> 32) VIRTUAL,
  sequence INTEGER AS (id & 0xffffffff) VIRTUAL,
  -- An entry's message_id; a head's version.
  number INTEGER NOT NULL,
  -- An entry's body; a head's last sequence.
  at INTEGER NOT NULL,
  commit_id BLOB,
  -- Of a head.
  snapshot TEXT
) STRICT;

INSERT INTO bodies (id, entry) SELECT row_number() OVER (ORDER BY id), entry FROM entries;
INSERT INTO log (id, number, at, commit_id)
  SELECT id, message_id, row_number() OVER (ORDER BY id), commit_id FROM entries;
INSERT INTO log (id, number, at, commit_id, snapshot)
  SELECT (id << 32) | 0xffffffff, version, sequence, commit_id, snapshot FROM threads ORDER BY id;

DROP TABLE entries;
ALTER TABLE threads DROP COLUMN version;
ALTER TABLE threads DROP COLUMN sequence;
ALTER TABLE threads DROP COLUMN commit_id;
ALTER TABLE threads DROP COLUMN snapshot;

CREATE VIEW entries AS
  SELECT l.id, l.thread, l.sequence, l.number AS message_id, l.commit_id, b.entry
  FROM log l CROSS JOIN bodies b ON b.id = l.at WHERE l.snapshot IS NULL;
CREATE VIEW thread_heads AS
  SELECT t.id, t.user_id, t.client, t.business, t.auth_id, t.state, t.active, t.deadline,
    l.number AS version, l.at AS sequence, l.commit_id, l.snapshot
  FROM threads t CROSS JOIN log l ON l.id = (t.id << 32) | 0xffffffff;
