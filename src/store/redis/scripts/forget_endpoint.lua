-- Forgets an endpoint in one partition, with all that waits for it and its past.

local head, endpoints, to = key(), key(), endpoint()
local epoch, name = text(), text()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
redis.call('UNLINK', to.waiting, to.outbox, to.dead, to.died, to.letters, to.status)
redis.call('SREM', endpoints, name)
return 'OK'
