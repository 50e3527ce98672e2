-- Writes something, to show that it can be done and that the store is still this node's.

local head = key()
if is_superseded(head, text()) then
  return SUPERSEDED
end
redis.call('HINCRBY', head, 'ping', 1)
return 'OK'
