-- Remembers a signed request. Answers 1 if it is new, also when the very same question is asked again because its answer
-- was lost: that is what the asker's own name is for.

local askers, expiries = key(), key()
local request, asker, until_, now = text(), text(), text(), number()
local known = redis.call('ZSCORE', expiries, request)
if known and tonumber(known) >= now then
  return redis.call('HGET', askers, request) == asker and 1 or 0
end
redis.call('ZADD', expiries, until_, request)
redis.call('HSET', askers, request, asker)
return 1
