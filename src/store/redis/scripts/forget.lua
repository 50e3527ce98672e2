-- Forgets some of a partition's answers and signed requests that have expired; answers how many.

local answers, answer_expiries, askers, request_expiries = key(), key(), key(), key()
local now, most = text(), text()
local function forget(values, expiries, bound)
  local old = redis.call('ZRANGE', expiries, '-inf', bound, 'BYSCORE', 'LIMIT', 0, most)
  for _, name in ipairs(old) do
    redis.call('HDEL', values, name)
    redis.call('ZREM', expiries, name)
  end
  return #old
end
-- An answer may be forgotten at its time, a request only after it.
return forget(answers, answer_expiries, now) + forget(askers, request_expiries, '(' .. now)
