-- Keeps an answer by itself; the first one stays until it expires.

local head = key()
local epoch, now = text(), number()
local idem = idempotency()
if is_superseded(head, epoch) then
  return SUPERSEDED
end
if not is_kept(idem, now) then
  keep(idem, {})
end
return 'OK'
