-- Forgets some of an endpoint's dead letters from before a time; answers how many.

local head, to = key(), endpoint()
local epoch, before, most = text(), text(), text()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
local old = redis.call('ZRANGE', to.died, '-inf', '(' .. before, 'BYSCORE', 'LIMIT', 0, most)
for _, webhook_id in ipairs(old) do
  remove_letter(to, webhook_id)
end
return #old
