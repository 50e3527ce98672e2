-- Puts dead letters of one endpoint back among what waits, under new ids. Answers the records of those that it put there,
-- {id, record, id, record, ...}; when it is asked again because its answer was lost, it finds them by their ids.

local head, to = key(), endpoint()
local epoch, now = text(), number()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
local done = {}
for _ = 1, number() do
  local webhook_id, id = text(), text()
  local form = redis.call('HGET', to.letters, webhook_id)
  local waits = redis.call('HGET', to.outbox, id)
  if waits then
    table.insert(done, id)
    table.insert(done, waits)
  elseif form then
    local letter = cjson.decode(form)
    local record = {
      user_id = letter.user_id, webhook_id = webhook_id, what = letter.what, sequence = letter.sequence,
      created_at = now, due_at = now, attempts = 0, replayed = true, log = letter.log,
    }
    local again = cjson.encode(record)
    remove_letter(to, webhook_id)
    enqueue(to, id, again)
    redis.call('HSET', head, 'outbox', id)
    redis.call('HSET', to.status, 'replayed', id)
    table.insert(done, id)
    table.insert(done, again)
  end
end
return done
