-- One atomic step on the configuration. Endpoints that are gone are noted, and forgotten partition by partition after it;
-- what remains noted after a crash is forgotten when the store is opened.

local head, documents, forgetting = key(), key(), key()
local write_id, expected_revision, expected_write = text(), text(), text()
local deleted, put, forgotten, welcome = {}, {}, {}, {}
for n = 1, number() do
  deleted[n] = text()
end
for n = 1, number() do
  put[n] = { name = text(), body = text() }
end
for n = 1, number() do
  forgotten[n] = text()
end
for n = 1, number() do
  welcome[n] = text()
end
local idem = text() == 'idempotency' and idempotency()

local stored = redis.call('HMGET', head, 'revision', 'write_id')
if (stored[1] or '0') ~= expected_revision then
  return stored[2] == write_id and 'applied' or 'conflict'
end
-- A failover took revisions back, and they were counted up again since.
if expected_write ~= '' and expected_write ~= stored[2] then
  return 'conflict'
end

for _, name in ipairs(deleted) do
  redis.call('HDEL', documents, name)
end
for _, document in ipairs(put) do
  redis.call('HSET', documents, document.name, document.body)
end
for _, name in ipairs(forgotten) do
  redis.call('SADD', forgetting, name)
end
for _, name in ipairs(welcome) do
  redis.call('SREM', forgetting, name)
end
-- Whoever used this key at the same time wrote documents as well: the revision has told.
if idem then
  keep(idem, {})
end
redis.call('HINCRBY', head, 'revision', 1)
redis.call('HSET', head, 'write_id', write_id)
return 'applied'
