-- What old threads leave behind.

-- How far the threads had counted that left a partition: those that are opened there later go on above it.
CREATE TABLE origins (
  partition INTEGER PRIMARY KEY,
  version INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  control_epoch INTEGER NOT NULL,
  conversation INTEGER NOT NULL
) STRICT;

-- Dead letters that are sent again refer to old entries, and stand behind new ones. A commit never touches this index.
CREATE INDEX outbox_replayed ON outbox (thread) WHERE replayed = 1;
