-- Put in front of every script: the clock, figures of any size, windows, reservations.
--
-- Keys, all of one machine's processes:
--   pst:epoch               names the set of quota counters that is valid; none: they are to be made
--   pst:making              held while somebody makes counters
--   pst:clock               last, offset, boot of the logical clock
--   pst:fence:<process>     which connection of a process may admit
--   pst:<rate counter>      a window: t newest second, n sum, and 61 buckets; or a sorted set of places
--   pst:<epoch>:<counter>   a quota: spent, held, expired
--   pst:r:<call id>         a reservation, packed: see `reservation`
--   pst:expiries            "<process> <call id>" of reservations alive, by when they expire
--   pst:expired             the same of those that did, by when they are forgotten
--
-- Names are made here from what is asked, so this needs one Redis, not a cluster.
-- Nothing but the journal and the ledger is a fact: all of this can be lost.

local BASE = 1000000000
local BUCKETS = 61
local KEPT_S = 3 * 86400  -- more than a day longer than anything needs, so that Redis's wall clock may jump by one
local EPOCH_KEPT_S = 40 * 86400  -- longer than a month's quota

-- Figures. Lua's numbers are exact to 2^53 and Redis's to 2^63, so a figure is two limbs of base 10^9:
-- its value is hi * BASE + lo, with 0 <= lo < BASE and the sign in hi.

local function plus(hi, lo, more_hi, more_lo)
  hi, lo = hi + more_hi, lo + more_lo
  if lo >= BASE then return hi + 1, lo - BASE end
  return hi, lo
end

local function negated(hi, lo)
  if lo == 0 then return -hi, 0 end
  return -hi - 1, BASE - lo
end

local function text(hi, lo)
  local sign = ''
  if hi < 0 then
    sign, hi, lo = '-', negated(hi, lo)
  end
  if hi == 0 then return sign .. string.format('%.0f', lo) end
  return sign .. string.format('%.0f%09.0f', hi, lo)
end

local function limbs(written)
  if #written <= 15 then
    local value = tonumber(written)
    local hi = math.floor(value / BASE)
    return hi, value - hi * BASE
  end
  if string.sub(written, 1, 1) == '-' then return negated(limbs(string.sub(written, 2))) end
  return tonumber(string.sub(written, 1, -10)), tonumber(string.sub(written, -9))
end

-- The clock. Its processes share a machine, so they pass what their steady clock says: it counts from the
-- machine's start and no wall clock moves it. Of two that read it and arrive the other way round, the later
-- stays. After the machine's restart it goes on where it was; what it missed only makes windows forget later.

local function logical(steady, boot)
  local was = redis.call('HMGET', 'pst:clock', 'last', 'offset', 'boot')
  local last, offset = tonumber(was[1] or '0'), tonumber(was[2] or '0')
  local anew = was[3] ~= boot or (boot == '' and steady + offset < last - 60)  -- '': nobody tells of a restart
  if was[1] and anew then offset = last - steady end
  local now = math.max(steady + offset, last)
  redis.call('HSET', 'pst:clock', 'last', now, 'offset', offset, 'boot', boot)
  if math.floor(now) ~= math.floor(last) then
    redis.call('EXPIRE', 'pst:clock', EPOCH_KEPT_S)
    redis.call('EXPIRE', 'pst:epoch', EPOCH_KEPT_S)
  end
  return now, offset
end

-- Windows.

local function emptied(key, from, passed)
  local old = {}
  for each = 1, passed do old[each] = (from + each) % BUCKETS end
  local sum = 0
  for _, amount in ipairs(redis.call('HMGET', key, unpack(old))) do sum = sum + (tonumber(amount or '0')) end
  redis.call('HDEL', key, unpack(old))
  return sum
end

-- Forget what has left the window; what is left in it, and in the bucket of this second.
local function begin_window(name, second)
  local key = 'pst:' .. name
  local was = redis.call('HMGET', key, 't', 'n', second % BUCKETS)
  local newest, used = tonumber(was[1] or '-1'), tonumber(was[2] or '0')
  if second <= newest then return used, tonumber(was[3] or '0') end
  if newest >= 0 then used = used - emptied(key, newest, math.min(second - newest, BUCKETS)) end
  redis.call('HSET', key, 't', second, 'n', used)
  redis.call('EXPIRE', key, KEPT_S)
  return used, 0
end

-- Reservations: {state, process, epoch, rates, quotas, enrolled}.
-- A rate is {name, kind, second, amount, tag}, a quota {counter, kind, hi, lo, tag}; the tag says which ask took it.
-- A settled one is {SETTLED, tokens, cost_hi, cost_lo}, kept only where somebody may still ask;
-- its tokens are -1 where it was released.

local ALIVE, EXPIRED, SETTLED = 0, 1, 2
local REQUESTS, TOKENS, THIRD = 0, 1, 2  -- THIRD: concurrent of a rate limit, money of a quota

local function reservation(call_id)
  local packed = redis.call('GET', 'pst:r:' .. call_id)
  return packed and cmsgpack.unpack(packed)
end

local function keep(call_id, found)
  redis.call('SET', 'pst:r:' .. call_id, cmsgpack.pack(found), 'EX', KEPT_S)
end

local known = {}

local function quota_key(epoch, counter)
  local key = 'pst:' .. epoch .. ':' .. counter
  if known[key] == nil then known[key] = redis.call('EXISTS', key) == 1 end
  return known[key] and key
end

local function move(found, from, to)
  for _, quota in ipairs(found[5]) do
    local key = quota_key(found[3], quota[1])
    if key then
      redis.call('HINCRBY', key, from, text(negated(quota[3], quota[4])))
      redis.call('HINCRBY', key, to, text(quota[3], quota[4]))
    end
  end
end

local function place(call_id, tag, number)
  return call_id .. ':' .. tag .. ':' .. number
end

local function take_places(name, call_id, tag, amount, until_)
  for number = 1, amount do redis.call('ZADD', 'pst:' .. name, until_, place(call_id, tag, number)) end
  redis.call('EXPIRE', 'pst:' .. name, KEPT_S)
end

local function give_places(call_id, rate)
  for number = 1, rate[4] do redis.call('ZREM', 'pst:' .. rate[1], place(call_id, rate[5], number)) end
end

-- A bounded number at a time: what is over waits for the next script, and is held until then.
local function expire(now)
  local due = redis.call('ZRANGEBYSCORE', 'pst:expiries', '-inf', now, 'LIMIT', 0, 50)
  for _, member in ipairs(due) do
    local call_id = string.match(member, ' (.*)$')
    local found = reservation(call_id)
    redis.call('ZREM', 'pst:expiries', member)
    if found and found[1] == ALIVE then
      move(found, 'held', 'expired')
      found[1] = EXPIRED
      keep(call_id, found)
      redis.call('ZADD', 'pst:expired', now + KEPT_S, member)
      redis.call('EXPIRE', 'pst:expired', KEPT_S)
    end
  end
  if #due > 0 then redis.call('ZREMRANGEBYSCORE', 'pst:expired', '-inf', now) end
end

