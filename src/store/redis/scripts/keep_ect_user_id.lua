-- Keeps what an ECT calls a user, if the user exists.

local user = key()
local ect, ect_user_id = text(), text()
if redis.call('EXISTS', user) == 1 then
  redis.call('HSET', user, 'ect:' .. ect, ect_user_id)
end
return 'OK'
