-- Adds to what an endpoint received, and forgets the older half when there is twice as much as is kept.

local received = key()
local kept = number()
for _ = 1, number() do
  local id, record = text(), text()
  redis.call('ZADD', received, id, record)
end
if redis.call('ZCARD', received) >= 2 * kept then
  redis.call('ZREMRANGEBYRANK', received, 0, -(kept + 1))
end
return 'OK'
