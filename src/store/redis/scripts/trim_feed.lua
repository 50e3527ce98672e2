-- Forgets a thread's first entries up to a sequence, some at once; answers how many.

local head, entries = key(), key()
local epoch, through, most = text(), text(), text()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
local old = redis.call('XRANGE', entries, '-', through, 'COUNT', most)
if #old > 0 then
  local last = tonumber(string.match(old[#old][1], '^(%d+)'))
  redis.call('XTRIM', entries, 'MINID', whole(last + 1))
end
return #old
