-- Says that a node lives, or that it leaves, and answers who else was heard of in the last minute:
-- {the time, then for each its instance, milliseconds ago, what it says of itself}.

local nodes = key()
local node, says = text(), text()
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if says == '' then
  redis.call('HDEL', nodes, node)
else
  redis.call('HSET', nodes, node, whole(now) .. ' ' .. says)
end
local all, answer = redis.call('HGETALL', nodes), { whole(now) }
for n = 1, #all, 2 do
  local at, form = string.match(all[n + 1], '^(%d+) (.*)$')
  -- Not by a clock that was set back, either.
  local ago = math.abs(now - tonumber(at or '0'))
  if ago > 60000 then
    redis.call('HDEL', nodes, all[n])
  else
    table.insert(answer, all[n])
    table.insert(answer, whole(ago))
    table.insert(answer, form)
  end
end
return answer
