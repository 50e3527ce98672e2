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

-- The fence: whoever opened the store later has written a higher epoch into every partition, and nothing that this node
-- sends from then on counts.
local SUPERSEDED = redis.error_reply('SUPERSEDED another node has opened this store')

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

-- Puts a delivery behind everything that waits for its endpoint.
local function enqueue(to, id, record)
  redis.call('ZADD', to.waiting, id, id)
  redis.call('HSET', to.outbox, id, record)
  redis.call('HINCRBY', to.status, 'pending', 1)
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
