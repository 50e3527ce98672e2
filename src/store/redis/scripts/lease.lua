-- Takes or renews the lease: for the one that has it, or for anybody when nobody has. Answers what is left of another's
-- in milliseconds, or 0 when it is ours.

local lease = key()
local holder, lasts_ms = text(), text()
local has = redis.call('GET', lease)
if has and has ~= holder then
  return math.max(redis.call('PTTL', lease), 1)
end
redis.call('SET', lease, holder, 'PX', lasts_ms)
return 0
