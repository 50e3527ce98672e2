-- Names and single values: revision, partitions, handle_key.
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- The last value given out: of a partition's message ids; -1 is the outbox. All on one page.
CREATE TABLE counters (
  name INTEGER PRIMARY KEY,
  last INTEGER NOT NULL
) STRICT;

-- The snapshot comes last: what searches read is before it.
CREATE TABLE threads (
  id INTEGER PRIMARY KEY,
  user_id TEXT NOT NULL,
  client TEXT NOT NULL,
  business INTEGER NOT NULL,
  auth_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  state TEXT NOT NULL,
  active TEXT NOT NULL,
  deadline INTEGER,
  commit_id BLOB,
  snapshot TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX threads_user_id ON threads (user_id);
CREATE INDEX threads_client ON threads (client);
CREATE INDEX threads_auth_id ON threads (auth_id);
CREATE INDEX threads_state ON threads (state);
CREATE INDEX threads_deadline ON threads (deadline) WHERE deadline IS NOT NULL;

-- How many threads there are of each kind, kept with every change, so that nobody has to count.
CREATE TABLE thread_counts (
  client TEXT NOT NULL,
  business INTEGER NOT NULL,
  state TEXT NOT NULL,
  active TEXT NOT NULL,
  threads INTEGER NOT NULL,
  PRIMARY KEY (client, business, state, active)
) STRICT, WITHOUT ROWID;

-- One integer key for (thread, sequence): a thread's entries lie together, and long ones fit their page.
-- Only the first entry of a commit names the commit.
CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  thread INTEGER AS (id >> 32) VIRTUAL,
  sequence INTEGER AS (id & 0xffffffff) VIRTUAL,
  message_id INTEGER NOT NULL,
  commit_id BLOB,
  entry TEXT NOT NULL
) STRICT;

CREATE TABLE users (
  id INTEGER PRIMARY KEY,
  client TEXT NOT NULL,
  auth_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  commit_id BLOB NOT NULL,
  profile TEXT NOT NULL,
  user_details TEXT,
  ect_user_ids TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE UNIQUE INDEX users_auth_id ON users (client, auth_id);

CREATE TABLE endpoints (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  pending INTEGER NOT NULL DEFAULT 0,
  last_success_at INTEGER,
  last_error TEXT
) STRICT;

CREATE TABLE outbox (
  endpoint INTEGER NOT NULL,
  id INTEGER NOT NULL,
  thread INTEGER NOT NULL,
  webhook_id TEXT NOT NULL,
  what TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  answers_handoff INTEGER,
  created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  first_attempt_at INTEGER,
  due_at INTEGER NOT NULL,
  PRIMARY KEY (endpoint, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_thread ON outbox (endpoint, thread, id);

CREATE TABLE kept (
  key BLOB PRIMARY KEY,
  request BLOB NOT NULL,
  expires_at INTEGER NOT NULL,
  answer TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_expires_at ON kept (expires_at);

CREATE TABLE documents (
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
