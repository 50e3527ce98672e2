-- Signed requests that were accepted, until their timestamps are out of range.
CREATE TABLE seen_requests (
  key BLOB PRIMARY KEY,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_requests_until ON seen_requests (until);
