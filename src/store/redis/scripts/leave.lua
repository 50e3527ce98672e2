-- A thread leaves with its entries, and its user if none of the user's other threads is there. Answers 'applied', also when
-- it is gone already, or 'conflict'.

local head, thread, entries, threads, deadlines, counts, user = key(), key(), key(), key(), key(), key(), key()
local user_id, expected_version, user_version = text(), number(), text()
local sequence, control_epoch, conversation = number(), number(), number()
local siblings = {}
for n = 1, number() do
  siblings[n] = key()
end
local stored = redis.call('HMGET', thread, 'version', 'client', 'business', 'state', 'active')
local version = tonumber(stored[1])
if not version then
  return 'applied'
end
-- Whoever opens another thread of this user writes the user too.
if version ~= expected_version or (redis.call('HGET', user, 'version') or '') ~= user_version then
  return 'conflict'
end

redis.call('UNLINK', thread, entries)
redis.call('ZREM', threads, user_id)
redis.call('ZREM', deadlines, user_id)
count(counts, stored[2], stored[3], stored[4], stored[5], -1)
if #siblings == 0 or redis.call('EXISTS', unpack(siblings)) == 0 then
  redis.call('DEL', user)
end
-- Threads that are opened in its place count on from here.
local left = { left_version = version + 1, left_sequence = sequence, left_epoch = control_epoch,
  left_conversation = conversation }
for name, last in pairs(left) do
  local highest = tonumber(redis.call('HGET', head, name) or '0')
  redis.call('HSET', head, name, whole(math.max(highest, last)))
end
return 'applied'
