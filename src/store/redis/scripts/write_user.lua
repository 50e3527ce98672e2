-- One atomic step on a user, which may open a thread. Answers {'conflict'}; {'again'} when this step was applied before and
-- its answer lost; else {'applied', 'here' or 'elsewhere', then for each delivery of a thread that it opened its id and
-- what waited before it}.

local head, user, threads, counts, endpoints = key(), key(), key(), key(), key()
local here = place()
local commit_id, expected_version, now = text(), number(), number()
local profile = text() == 'profile' and text()
local open = text() == 'open' and {
  thread = key(), user_id = text(), client = text(), business = text(), auth_id = text(),
  snapshot = text(), sequence = text(), epoch = number(), conversation = number(), state = text(), active = text(),
}
local idem = text() == 'idempotency' and idempotency()
local to, names = {}, {}
for n = 1, number() do
  to[n], names[n] = endpoint(), text()
end
local deliveries = {}
for n = 1, number() do
  deliveries[n] = { to = to[number()], record = text() }
end

local stored = redis.call('HMGET', user, 'version', 'commit_id')
local version = tonumber(stored[1] or '0')
if version ~= expected_version then
  return { stored[2] == commit_id and 'again' or 'conflict' }
end
local outbox = outbox_of(head, here)
if not has_room(outbox, #deliveries, here) then
  return full()
end
if idem and is_kept(idem, now) then
  return { 'conflict' }
end
-- Threads that left have counted so far: this one begins above them.
local opened = open and redis.call('EXISTS', open.thread) == 0
local left = redis.call('HMGET', head, 'left_version', 'left_sequence', 'left_epoch', 'left_conversation')
if opened and (tonumber(open.sequence) < tonumber(left[2] or '0') or open.epoch <= tonumber(left[3] or '0')
  or open.conversation < tonumber(left[4] or '0')) then
  return { 'conflict' }
end

redis.call('HSET', user, 'version', whole(version + 1), 'commit_id', commit_id)
if profile then
  redis.call('HSET', user, 'profile', profile)
else
  redis.call('HSETNX', user, 'profile', '{}')
end
local answer = { 'applied', '' }
if opened then
  redis.call('HSET', open.thread, 'client', open.client, 'business', open.business, 'auth_id', open.auth_id,
    'version', left[1] or '0', 'sequence', open.sequence, 'state', open.state, 'active', open.active, 'snapshot', open.snapshot)
  redis.call('ZADD', threads, redis.call('HINCRBY', head, 'threads', 1), open.user_id)
  count(counts, open.client, open.business, open.state, open.active, 1)
  if #names > 0 then
    redis.call('SADD', endpoints, unpack(names))
  end
  enqueue(head, outbox, deliveries, here, answer)
  answer[2] = tell(outbox, here, #deliveries, names, '')
end
if idem then
  keep(idem, {})
end
return answer
