-- Endpoints are forgotten everywhere: notes it, so that it is not done again.

local forgetting = key()
for _ = 1, number() do
  redis.call('SREM', forgetting, text())
end
return 'OK'
