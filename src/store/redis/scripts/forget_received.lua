-- Forgets what an endpoint received.

redis.call('UNLINK', key())
return 'OK'
