-- Admit calls, all or nothing each, in the order they came.
-- ARGV[1]: {process, fence, steady, boot, tag, asks}, packed;
-- an ask is {call_id, lives_s, rates, quotas},
-- a rate {name, kind, limit, asked}, a quota {counter, kind, asked_hi, asked_lo, amount_hi, amount_lo}.
-- Answers a list, packed: {1, remaining of rates..., used of quotas before...} admitted; {0, exceeded...} not, each
-- {0, place in rates, used, retry_after_s} or {1, place in quotas, spent, held, expired};
-- {2, place in quotas...} these counters are to be made; {3} all are.

local process, fence, steady, boot, tag, asks = unpack(cmsgpack.unpack(ARGV[1]))

-- What a connection sent before it was given up may arrive after its calls were answered otherwise.
if redis.call('GETEX', 'pst:fence:' .. process, 'EX', KEPT_S) ~= fence then
  return redis.error_reply('FENCED this connection was given up')
end

local now = logical(steady, boot)
local second = math.floor(now)
local epoch = redis.call('GET', 'pst:epoch')
expire(now)

-- What calls of one batch share is read once and written once.
local windows, places, quotas = {}, {}, {}

local function window(name)
  local found = windows[name]
  if not found then
    local used, bucket = begin_window(name, second)
    found = {key = 'pst:' .. name, used = used, bucket = bucket, added = 0}
    windows[name] = found
  end
  return found
end

local function places_of(name)
  local found = places[name]
  if not found then
    redis.call('ZREMRANGEBYSCORE', 'pst:' .. name, '-inf', now)
    found = {used = redis.call('ZCARD', 'pst:' .. name)}
    places[name] = found
  end
  return found
end

local function quota_of(counter)
  local found = quotas[counter]
  if found == nil then
    local key = 'pst:' .. epoch .. ':' .. counter
    local was = redis.call('HMGET', key, 'spent', 'held', 'expired')
    if not was[1] then
      found = false
    else
      found = {key = key, spent = was[1], expired = was[3], added_hi = 0, added_lo = 0}
      found.held_hi, found.held_lo = limbs(was[2])
      found.hi, found.lo = plus(found.held_hi, found.held_lo, limbs(was[1]))
      found.hi, found.lo = plus(found.hi, found.lo, limbs(was[3]))
    end
    quotas[counter] = found
  end
  return found
end

local function free_after(key, too_much)
  local fields = {}
  for each = 1, BUCKETS do fields[each] = (second + each) % BUCKETS end
  for each, amount in ipairs(redis.call('HMGET', key, unpack(fields))) do
    too_much = too_much - tonumber(amount or '0')
    if too_much <= 0 then return second + each - now end
  end
  return BUCKETS  -- what is asked for now is in the way
end

local function judge_rates(rates, exceeded)
  for index, rate in ipairs(rates) do
    local name, kind, limit, asked = unpack(rate)
    local found = kind == THIRD and places_of(name) or window(name)
    if found.used + asked > limit then
      local again = 1
      if kind ~= THIRD then again = free_after(found.key, found.used + asked - limit) end
      exceeded[#exceeded + 1] = {0, index, found.used, again}
    end
  end
end

local function judge_quotas(asked, exceeded, missing)
  for index, quota in ipairs(asked) do
    local found = quota_of(quota[1])
    if not found then
      missing[#missing + 1] = index
    else
      local hi, lo = plus(found.hi, found.lo, quota[3], quota[4])
      if hi > quota[5] or (hi == quota[5] and lo > quota[6]) then
        exceeded[#exceeded + 1] = {1, index, found.spent, text(found.held_hi, found.held_lo), found.expired}
      end
    end
  end
end

local function take_rates(call_id, lives_s, rates, taken, answer)
  for _, rate in ipairs(rates) do
    local name, kind, limit, asked = unpack(rate)
    local found
    if kind == THIRD then
      found = places_of(name)
      take_places(name, call_id, tag, asked, now + lives_s)
    else
      found = window(name)
      found.added = found.added + asked
    end
    found.used = found.used + asked
    taken[#taken + 1] = {name, kind, second, asked, tag}
    answer[#answer + 1] = limit - found.used
  end
end

local function take_quotas(asked, taken, answer)
  for _, quota in ipairs(asked) do
    local found, hi, lo = quota_of(quota[1]), quota[3], quota[4]
    answer[#answer + 1] = text(found.hi, found.lo)
    found.hi, found.lo = plus(found.hi, found.lo, hi, lo)
    found.held_hi, found.held_lo = plus(found.held_hi, found.held_lo, hi, lo)
    found.added_hi, found.added_lo = plus(found.added_hi, found.added_lo, hi, lo)
    taken[#taken + 1] = {quota[1], quota[2], hi, lo, tag}
  end
end

-- The call holds something already: it holds more from now on.
local function held_before(call_id, lives_s)
  local found = reservation(call_id)
  if found[1] == SETTLED then found = {ALIVE, process, epoch or '', {}, {}, 0} end
  if found[1] == EXPIRED then
    move(found, 'expired', 'held')
    redis.call('ZREM', 'pst:expired', process .. ' ' .. call_id)
    found[1] = ALIVE
  end
  if epoch and found[3] ~= epoch then found[3], found[5] = epoch, {} end
  for _, rate in ipairs(found[4]) do
    if rate[2] == THIRD then take_places(rate[1], call_id, rate[5], rate[4], now + lives_s) end
  end
  return found
end

local function take(ask)
  local call_id, lives_s, rates, asked = unpack(ask)
  local key, answer, found = 'pst:r:' .. call_id, {1}, nil
  if redis.call('EXISTS', key) == 1 then
    found = held_before(call_id, lives_s)
  else
    found = {ALIVE, process, epoch or '', {}, {}, 0}
  end
  take_rates(call_id, lives_s, rates, found[4], answer)
  take_quotas(asked, found[5], answer)
  keep(call_id, found)
  redis.call('ZADD', 'pst:expiries', now + lives_s, process .. ' ' .. call_id)
  return answer
end

local function decide(ask)
  local exceeded, missing = {0}, {2}
  judge_rates(ask[3], exceeded)
  if #ask[4] > 0 then
    if not epoch then return {3} end
    judge_quotas(ask[4], exceeded, missing)
  end
  if #exceeded > 1 then return exceeded end
  if #missing > 1 then return missing end
  return take(ask)
end

local answers = {}
for index, ask in ipairs(asks) do answers[index] = decide(ask) end

for _, found in pairs(windows) do
  if found.added > 0 then
    redis.call('HSET', found.key, 'n', found.used, second % BUCKETS, found.bucket + found.added)
  end
end
for _, found in pairs(quotas) do
  if found and (found.added_hi > 0 or found.added_lo > 0) then
    redis.call('HINCRBY', found.key, 'held', text(found.added_hi, found.added_lo))
  end
end
if #asks > 0 then redis.call('EXPIRE', 'pst:expiries', KEPT_S) end
return cmsgpack.pack(answers)
