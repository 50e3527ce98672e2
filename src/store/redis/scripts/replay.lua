-- Puts dead letters of one endpoint back among what waits, behind everything that waits already. Answers {'applied', 'here'
-- or 'elsewhere', then for each its id, what waited before it, and its record}; {'again', how many} when this step was
-- applied before and its answer lost.

local head, to = key(), endpoint()
local here, step, name, now = place(), text(), text(), number()
local wanted = {}
for n = 1, number() do
  wanted[n] = text()
end
-- For each endpoint by itself: a step has a call for each, and all are asked for again.
local last = redis.call('HMGET', to.status, 'replay_step', 'replay_count')
if last[1] == step then
  return { 'again', last[2] }
end
local outbox = outbox_of(head, here)
if not has_room(outbox, #wanted, here) then
  return full()
end
local deliveries = {}
for _, webhook_id in ipairs(wanted) do
  local form = redis.call('HGET', to.letters, webhook_id)
  if form then
    local letter = cjson.decode(form)
    local record = cjson.encode({
      user_id = letter.user_id, webhook_id = webhook_id, what = letter.what, sequence = letter.sequence,
      created_at = now, due_at = now, attempts = 0, replayed = true, log = letter.log,
    })
    remove_letter(to, webhook_id)
    table.insert(deliveries, { to = to, record = record })
  end
end
local ids = {}
enqueue(head, outbox, deliveries, here, ids)
redis.call('HSET', to.status, 'replay_step', step, 'replay_count', #deliveries)
if #deliveries > 0 then
  -- The last that stands behind what is newer than it.
  redis.call('HSET', to.status, 'replayed', ids[2 * #deliveries - 1])
end
local answer = { 'applied', tell(outbox, here, #deliveries, { name }, '') }
for n, delivery in ipairs(deliveries) do
  table.insert(answer, ids[2 * n - 1])
  table.insert(answer, ids[2 * n])
  table.insert(answer, delivery.record)
end
return answer
