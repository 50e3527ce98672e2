-- Gives a lease back, if it is still ours, and says so to the nodes that may want it.

local head = key()
local node, epoch = text(), text()
local has = redis.call('HMGET', head, 'owner', 'epoch')
if has[1] == node and has[2] == epoch then
  redis.call('HSET', head, 'owner', '', 'until', '0')
  redis.call('PUBLISH', 'tract:leases', 'free')
end
return 'OK'
