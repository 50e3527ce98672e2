-- One atomic step on one thread: its new snapshot, its entries, what is to be delivered, its timer, the answer to keep.
-- Answers {'applied', 'here' or 'elsewhere', message ids..., then for each delivery its id and what waited before it};
-- {'again', message ids...} when this commit was applied before and its answer lost; {'superseded'} when it settles a turn
-- under a lease that has passed on; or {'conflict'}.

local head, thread, entries, deadlines, counts, endpoints = key(), key(), key(), key(), key(), key()
local here = place()
local commit_id, user_id, expected_version, expected_commit, now = text(), text(), number(), text(), number()
local snapshot, state, active, deadline = text(), text(), text(), text()
local first_sequence, entry_count = number(), number()
local forms = {}
for n = 1, entry_count do
  forms[n] = text()
end
local named, details = text() == 'details', nil
local user = named and key()
if named then
  details = text()
end
local idem = text() == 'idempotency' and idempotency()
local to, names = {}, {}
for n = 1, number() do
  to[n], names[n] = endpoint(), text()
end
local settled = number()
local settled_id, settled_epoch = text(), text()
local deliveries = {}
for n = 1, number() do
  deliveries[n] = { to = to[number()], record = text() }
end

local stored = redis.call('HMGET', thread, 'version', 'sequence', 'commit_id', 'state', 'active', 'client', 'business')
local version, sequence = tonumber(stored[1]), tonumber(stored[2])
if not version then
  return { 'conflict' }
end

-- Somebody else was here, or this very commit.
if version ~= expected_version then
  if entry_count == 0 then
    local last = version == expected_version + 1 and stored[3] == commit_id
    return { last and 'again' or 'conflict' }
  end
  local found = redis.call('XRANGE', entries, whole(first_sequence), '+', 'COUNT', entry_count)
  local entry = found[1]
  if not entry or entry[1] ~= whole(first_sequence) .. '-0' or entry[2][6] ~= commit_id then
    return { 'conflict' }
  end
  local answer = { 'again' }
  for n, entry in ipairs(found) do
    answer[n + 1] = entry[2][2]
  end
  return answer
end

-- A failover took versions back, and they were counted up again since.
if expected_commit ~= '' and expected_commit ~= stored[3] then
  return { 'conflict' }
end
if entry_count > 0 and first_sequence ~= sequence + 1 then
  return redis.error_reply("REFUSED the entries do not continue the thread's sequence")
end
local settled_turn
if settled > 0 then
  if is_superseded(head, settled_epoch) then
    return { 'superseded' }
  end
  local record = redis.call('HGET', to[settled].outbox, settled_id)
  settled_turn = record and cjson.decode(record)
  if not settled_turn or settled_turn.user_id ~= user_id then
    return { 'conflict' }
  end
end
if idem and is_kept(idem, now) then
  return { 'conflict' }
end
local counter = tonumber(redis.call('HGET', head, 'counter') or '0')
local ids = {}
for n = 1, entry_count do
  counter = after(counter, here)
  ids[n] = id_of(counter, here)
end
local outbox = outbox_of(head, here)
if counter >= here.counter_end or not has_room(outbox, #deliveries, here) then
  return full()
end

if entry_count > 0 then
  redis.call('HSET', head, 'counter', whole(counter))
  sequence = first_sequence + entry_count - 1
end
for n, form in ipairs(forms) do
  local at = whole(first_sequence + n - 1) .. '-0'
  if n == 1 then
    redis.call('XADD', entries, at, 'id', ids[n], 'entry', form, 'commit_id', commit_id)
  else
    redis.call('XADD', entries, at, 'id', ids[n], 'entry', form)
  end
end
redis.call('HSET', thread, 'version', whole(version + 1), 'sequence', whole(sequence), 'commit_id', commit_id,
  'state', state, 'active', active, 'snapshot', snapshot)
if deadline == 'none' then
  redis.call('HDEL', thread, 'deadline')
  redis.call('ZREM', deadlines, user_id)
elseif deadline ~= 'keep' then
  redis.call('HSET', thread, 'deadline', deadline)
  redis.call('ZADD', deadlines, deadline, user_id)
end
if stored[4] ~= state or stored[5] ~= active then
  count(counts, stored[6], stored[7], stored[4], stored[5], -1)
  count(counts, stored[6], stored[7], state, active, 1)
end
if settled_turn then
  remove(to[settled], settled_id)
end
if #names > 0 then
  redis.call('SADD', endpoints, unpack(names))
end
local answer = { 'applied', '', unpack(ids) }
enqueue(head, outbox, deliveries, here, answer)
answer[2] = tell(outbox, here, #deliveries, names, tonumber(deadline) and deadline or '')
if details and redis.call('EXISTS', user) == 1 then
  redis.call('HSET', user, 'user_details', details)
end
if idem then
  keep(idem, ids)
end
return answer
