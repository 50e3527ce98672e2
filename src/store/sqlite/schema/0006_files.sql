-- Files that customers sent. Their bytes stand in a directory beside this file, for a blob of megabytes would hold up
-- everybody's commits. A row is there before its bytes are, and until they are gone: so none are ever left without one.
CREATE TABLE files (
  token TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  -- The entry that names it; none as long as that is not known.
  sequence INTEGER,
  at INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  name TEXT NOT NULL,
  size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX files_thread ON files (user_id, sequence);
CREATE INDEX files_unnamed ON files (at) WHERE sequence IS NULL;
