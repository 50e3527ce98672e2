-- Forgets what an endpoint received; then it is forgotten altogether.

local forgetting, received = key(), key()
redis.call('UNLINK', received)
redis.call('SREM', forgetting, text())
return 'OK'
