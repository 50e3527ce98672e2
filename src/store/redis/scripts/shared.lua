-- What stands before every script: how it takes its keys and arguments, the fence, and what several scripts do.
--
-- A script checks everything before its first write, for Redis takes nothing back.

local keys_taken, arguments_taken = 0, 0

local function key()
  keys_taken = keys_taken + 1
  return KEYS[keys_taken]
end

local function text()
  arguments_taken = arguments_taken + 1
  return ARGV[arguments_taken]
end

local function number()
  return tonumber(text())
end

-- Whether the lease on this partition has passed on since that epoch: what was done under it does not count any more.
local function is_superseded(head, epoch)
  return redis.call('HGET', head, 'epoch') ~= epoch
end

-- A whole number in full, where Lua would write it with an exponent.
local function whole(n)
  return string.format('%.0f', n)
end

-- The keys of one endpoint in this partition.
local function endpoint()
  return {
    waiting = key(), outbox = key(),
    dead = key(), died = key(), letters = key(), status = key(),
  }
end

-- Which node this is, and what ids are made of.
local function place()
  return { node = text(), partition = number(), partitions = number(), floor = number(), counter_end = number() }
end

local function full()
  return redis.error_reply('REFUSED the ids are used up')
end

-- A counter of the partition after another step: ahead of it, and of every value that a store which was rolled back may
-- have given out.
local function after(counter, here)
  return math.max(counter + 1, here.floor)
end

local function id_of(counter, here)
  return whole(counter * here.partitions + here.partition)
end

-- What the partition's head says of its outbox.
local function outbox_of(head, here)
  local stored = redis.call('HMGET', head, 'outbox', 'enqueued', 'owner')
  return {
    counter = math.floor(tonumber(stored[1] or '0') / here.partitions),
    enqueued = tonumber(stored[2] or '0'), owner = stored[3],
  }
end

-- Whether there are ids left for so many.
local function has_room(outbox, count, here)
  return math.max(outbox.counter, here.floor) + count < here.counter_end
end

-- Puts deliveries behind everything that waits for their endpoints, and adds to an answer for each: its id, and the highest
-- id that waited for its endpoint before.
local function enqueue(head, outbox, deliveries, here, answer)
  if #deliveries == 0 then
    return
  end
  local id
  for _, delivery in ipairs(deliveries) do
    local to = delivery.to
    outbox.counter = after(outbox.counter, here)
    id = id_of(outbox.counter, here)
    table.insert(answer, id)
    table.insert(answer, redis.call('ZRANGE', to.waiting, -1, -1)[1] or '0')
    redis.call('ZADD', to.waiting, id, id)
    redis.call('HSET', to.outbox, id, delivery.record)
    redis.call('HINCRBY', to.status, 'pending', 1)
  end
  redis.call('HSET', head, 'outbox', id, 'enqueued', whole(outbox.enqueued + #deliveries))
end

-- Who acts for the partition: this node ('here'), or another, which is told; or nobody, and whoever will reads the store.
local function tell(outbox, here, count, names, deadline)
  if outbox.owner == here.node then
    return 'here'
  end
  if outbox.owner and outbox.owner ~= '' and (count > 0 or deadline ~= '') then
    local notice = table.concat({ whole(here.partition), whole(count), deadline, unpack(names) }, '\n')
    redis.call('PUBLISH', 'tract:node:' .. outbox.owner, notice)
  end
  return 'elsewhere'
end

-- Takes a delivery that waits out of the outbox.
local function remove(to, id)
  redis.call('ZREM', to.waiting, id)
  redis.call('HDEL', to.outbox, id)
  redis.call('HINCRBY', to.status, 'pending', -1)
end

-- Makes a dead letter of this record.
local function add_letter(to, id, record, died_at)
  record.id, record.ended_at = id, died_at
  redis.call('ZADD', to.dead, id, record.webhook_id)
  redis.call('ZADD', to.died, died_at, record.webhook_id)
  redis.call('HSET', to.letters, record.webhook_id, cjson.encode(record))
  redis.call('HINCRBY', to.status, 'dead', 1)
end

local function remove_letter(to, webhook_id)
  redis.call('ZREM', to.dead, webhook_id)
  redis.call('ZREM', to.died, webhook_id)
  redis.call('HDEL', to.letters, webhook_id)
  redis.call('HINCRBY', to.status, 'dead', -1)
end

-- An idempotency key with the answer to keep for it.
local function idempotency()
  return {
    answers = key(), expiries = key(),
    name = text(), request = text(), expires_at = text(), answer = text(),
  }
end

-- Whether an answer is kept for this key, and has not expired.
local function is_kept(idem, now)
  local expires_at = redis.call('ZSCORE', idem.expiries, idem.name)
  return expires_at and tonumber(expires_at) > now
end

-- Keeps the answer, with the message ids of its commit.
local function keep(idem, ids)
  local value = table.concat({ idem.expires_at, idem.request, table.concat(ids, ','), idem.answer }, ' ')
  redis.call('HSET', idem.answers, idem.name, value)
  redis.call('ZADD', idem.expiries, idem.expires_at, idem.name)
end

-- Counts one thread more, or one less, of this kind.
local function count(counts, client, business, state, active, change)
  local kind = table.concat({ client, business, state, active }, ':')
  if redis.call('HINCRBY', counts, kind, change) == 0 then
    redis.call('HDEL', counts, kind)
  end
end
