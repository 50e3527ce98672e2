-- Forgets some of an endpoint's dead letters from before a time; answers how many.

local to = endpoint()
local before, most = text(), text()
local old = redis.call('ZRANGE', to.died, '-inf', '(' .. before, 'BYSCORE', 'LIMIT', 0, most)
for _, webhook_id in ipairs(old) do
  remove_letter(to, webhook_id)
end
return #old
