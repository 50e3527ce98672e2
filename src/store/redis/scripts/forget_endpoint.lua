-- Forgets an endpoint in one partition, with all that waits for it and its past.

local endpoints, to = key(), endpoint()
local name = text()
redis.call('UNLINK', to.waiting, to.outbox, to.dead, to.died, to.letters, to.status)
redis.call('SREM', endpoints, name)
return 'OK'
