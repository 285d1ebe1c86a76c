-- Make quota counters from a survey of the ledger and the journals.
-- ARGV[1]: {token, epoch, whole, last, steady, boot, counters, holds}, packed;
-- `whole` where every counter is made and the epoch begins with the last part, `last`.
-- A counter is {counter, kept_s, spent_hi, spent_lo}, a hold {call_id, process, counter, kind, hi, lo, lives_s}.
-- Answers 1, or 0 where somebody else makes them now: the survey is of no use any more.

local token, epoch, whole, last, steady, boot, counters, holds = unpack(cmsgpack.unpack(ARGV[1]))
if redis.call('GET', 'pst:making') ~= token then return 0 end
if not whole and redis.call('GET', 'pst:epoch') ~= epoch then return 0 end

local now = logical(steady, boot)
local made = {}

for _, counter in ipairs(counters) do
  local name, kept_s, hi, lo = unpack(counter)
  local key = 'pst:' .. epoch .. ':' .. name
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'spent', text(hi, lo), 'held', 0, 'expired', 0)
    redis.call('EXPIRE', key, kept_s)
    made[name] = key
  end
end

-- It ended after the journals were read: it has used what it used, and holds nothing.
local function ended(found, kind)
  if found[2] < 0 then return 0, 0 end
  if kind == REQUESTS then return 0, 1 end
  if kind == THIRD then return found[3], found[4] end
  local hi = math.floor(found[2] / BASE)
  return hi, found[2] - hi * BASE
end

local function held_already(found, counter)
  local hi, lo, any = 0, 0, false
  for _, quota in ipairs(found[5]) do
    if quota[1] == counter then
      hi, lo = plus(hi, lo, quota[3], quota[4])
      any = true
    end
  end
  return any, hi, lo
end

local function hold(call_id, process, counter, kind, hi, lo, lives_s)
  local found = reservation(call_id)
  if found and found[1] == SETTLED then return 'spent', ended(found, kind) end
  if not found then
    found = {ALIVE, process, epoch, {}, {}, 0}
    redis.call('ZADD', 'pst:expiries', now + lives_s, process .. ' ' .. call_id)
    redis.call('EXPIRE', 'pst:expiries', KEPT_S)
  end
  if found[3] ~= epoch then found[3], found[5] = epoch, {} end
  local any, was_hi, was_lo = held_already(found, counter)
  if any then
    hi, lo = was_hi, was_lo
  else
    table.insert(found[5], {counter, kind, hi, lo, ''})
  end
  keep(call_id, found)
  return found[1] == EXPIRED and 'expired' or 'held', hi, lo
end

for _, each in ipairs(holds) do
  local key = made[each[3]]
  if key then
    local field, hi, lo = hold(unpack(each))
    redis.call('HINCRBY', key, field, text(hi, lo))
  end
end

if last then
  if whole then redis.call('SET', 'pst:epoch', epoch, 'EX', EPOCH_KEPT_S) end
  redis.call('DEL', 'pst:making')
end
return 1
