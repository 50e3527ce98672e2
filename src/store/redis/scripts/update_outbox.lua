-- What became of deliveries to one endpoint in one partition. Those that are gone meanwhile are left alone, so that each
-- change counts once. Answers what was received: {id, record, id, record, ...}; nothing when the lease that they were made
-- under has passed on.

local head, to = key(), endpoint()
local epoch, attempts_kept = text(), number()
local updates = {}
for n = 1, number() do
  local update = { kind = text(), id = text() }
  if update.kind == 'over' then
    update.end_, update.ended_at, update.error = text(), number(), text()
    update.attempt, update.of = text(), number()
  elseif update.kind == 'retry' then
    update.attempts, update.first_attempt_at, update.due_at = number(), number(), number()
    update.ended_at, update.error, update.attempt, update.of = number(), text(), text(), number()
  end
  updates[n] = update
end
if is_superseded(head, epoch) then
  return false
end

local received = {}

local function log(record, attempt)
  record.log = record.log or {}
  table.insert(record.log, attempt)
  if #record.log > attempts_kept then
    table.remove(record.log, 1)
  end
end

local function note_error(update)
  if update.error ~= '' then
    redis.call('HSET', to.status, 'error', update.error, 'error_at', whole(update.ended_at))
  end
end

local function note_end(update, id, of, record)
  record.of = of
  if update.end_ == 'dead' then
    add_letter(to, id, record, update.ended_at)
  else
    record.ended_at, record.rejected = update.ended_at, update.end_ == 'rejected'
    table.insert(received, id)
    table.insert(received, cjson.encode(record))
    local last = tonumber(redis.call('HGET', to.status, 'success') or '-1')
    redis.call('HSET', to.status, 'success', whole(math.max(last, update.ended_at)))
  end
  if update.end_ ~= 'delivered' then
    note_error(update)
  end
end

-- The message of a range as a record of its own.
local function message_of(record, of)
  local message = {}
  for name, value in pairs(record) do
    message[name] = value
  end
  message.webhook_id = record.webhook_id .. '-' .. whole(of)
  message.what, message.sequence = '{"what":"entry"}', of
  return message
end

for _, update in ipairs(updates) do
  local form = redis.call('HGET', to.outbox, update.id)
  local record = form and cjson.decode(form)
  local what = record and cjson.decode(record.what)
  local range = what and what.what == 'history' and what
  -- Of a range: the message that this is about is over already.
  local past = range and update.of and update.of > 0 and update.of <= range.after
  if record and not past then
    if update.kind == 'void' then
      remove(to, update.id)
    elseif update.kind == 'over' then
      log(record, update.attempt)
      if range and update.of > 0 then
        note_end(update, update.id, update.of, message_of(record, update.of))
        -- Each message of a range is tried on its own: the next starts afresh.
        record.what = string.format('{"what":"history","after":%.0f,"through":%.0f}', update.of, range.through)
        record.attempts, record.first_attempt_at, record.log = 0, nil, nil
        redis.call('HSET', to.outbox, update.id, cjson.encode(record))
      else
        remove(to, update.id)
        note_end(update, update.id, 0, record)
      end
    -- A schedule that began afresh counts from one again, but from another first attempt.
    elseif record.first_attempt_at ~= update.first_attempt_at or record.attempts < update.attempts then
      log(record, update.attempt)
      record.attempts, record.first_attempt_at = update.attempts, update.first_attempt_at
      record.due_at = update.due_at
      redis.call('HSET', to.outbox, update.id, cjson.encode(record))
      note_error(update)
    end
  end
end
return received
