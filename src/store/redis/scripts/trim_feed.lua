-- Forgets a thread's first entries up to a sequence, some at once; answers how many.

local entries = key()
local through, most = text(), text()
local old = redis.call('XRANGE', entries, '-', through, 'COUNT', most)
if #old > 0 then
  local last = tonumber(string.match(old[#old][1], '^(%d+)'))
  redis.call('XTRIM', entries, 'MINID', whole(last + 1))
end
return #old
