-- Makes dead letters of deliveries that wait; answers how many: none when the lease has passed on.

local head, to = key(), endpoint()
local epoch, now = text(), number()
if is_superseded(head, epoch) then
  return 0
end
local buried = 0
for _ = 1, number() do
  local id = text()
  local form = redis.call('HGET', to.outbox, id)
  if form then
    local record = cjson.decode(form)
    remove(to, id)
    add_letter(to, id, record, now)
    buried = buried + 1
  end
end
return buried
