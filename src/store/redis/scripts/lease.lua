-- Renews the lease on a partition under its epoch, or takes it when it is free: another's that has not expired is not.
-- Answers {epoch, how many deliveries were ever enqueued}, or nothing when another node has it.

local head = key()
local node, lasts_ms, epoch = text(), number(), text()
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local has = redis.call('HMGET', head, 'owner', 'epoch', 'until', 'enqueued')
if epoch ~= '' then
  if has[1] ~= node or has[2] ~= epoch then
    return false
  end
else
  local left = tonumber(has[3] or '0') - now
  -- One that lasts longer than any was given under another server's clock, before a failover.
  if has[1] and has[1] ~= '' and has[1] ~= node and left > 0 and left <= lasts_ms then
    return false
  end
  epoch = whole(tonumber(has[2] or '0') + 1)
end
redis.call('HSET', head, 'owner', node, 'epoch', epoch, 'until', whole(now + lasts_ms))
return { epoch, has[4] or '0' }
