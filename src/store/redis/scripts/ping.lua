-- Writes something, to show that it can be done.

redis.call('HINCRBY', key(), 'ping', 1)
return 'OK'
