-- Keeps what an ECT calls a user, if the user exists.

local head, user = key(), key()
local epoch, ect, ect_user_id = text(), text(), text()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
if redis.call('EXISTS', user) == 1 then
  redis.call('HSET', user, 'ect:' .. ect, ect_user_id)
end
return 'OK'
