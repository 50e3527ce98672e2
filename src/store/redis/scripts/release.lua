-- Gives the lease back, if it is ours.

local lease = key()
if redis.call('GET', lease) == text() then
  redis.call('DEL', lease)
end
return 'OK'
