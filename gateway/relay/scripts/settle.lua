-- What became of calls. Safe to send again: a call that is not known any more changes nothing.
-- ARGV[1]: {steady, boot, ends}, packed; an end is one of
--   {SETTLE, call_id, tokens, cost_hi, cost_lo}           what it held becomes what it used
--   {RELEASE, call_id}                                    all that it took is given back
--   {UNDO, call_id, tag}                                  what one ask took is given back: its answer was lost
--   {ENROL, call_id, tag, process, epoch, steady, lives_s, rates, quotas}
--                                                         it was let in while Redis was away

local SETTLE, RELEASE, UNDO, ENROL = 0, 1, 2, 3
local NONE = -1  -- instead of tokens: the call was released, so it is no request either
local steady, boot, ends = unpack(cmsgpack.unpack(ARGV[1]))
local now, offset = logical(steady, boot)
local making = redis.call('EXISTS', 'pst:making') == 1

-- What changes is added up, and written once a script.

local corrections, sums = {}, {}

local function correct_window(name, second, by)
  local found = corrections[name] or {}
  corrections[name] = found
  found[second] = (found[second] or 0) + by
end

local function write_corrections(name, found)
  local key, fields, seconds = 'pst:' .. name, {'t', 'n'}, {}
  for each in pairs(found) do
    seconds[#seconds + 1] = each
    fields[#fields + 1] = each % BUCKETS
  end
  local was = redis.call('HMGET', key, unpack(fields))
  local newest, sum, row = tonumber(was[1] or '-1'), tonumber(was[2] or '0'), {}
  for index, each in ipairs(seconds) do
    if each <= newest and each > newest - BUCKETS then  -- else it has left the window
      sum = sum + found[each]
      row[#row + 1] = each % BUCKETS
      row[#row + 1] = tonumber(was[index + 2] or '0') + found[each]
    end
  end
  if #row > 0 then redis.call('HSET', key, 'n', sum, unpack(row)) end
end

local function add(key, field, hi, lo)
  local fields = sums[key] or {}
  sums[key] = fields
  local sum = fields[field] or {0, 0}
  fields[field] = sum
  sum[1], sum[2] = plus(sum[1], sum[2], hi, lo)
end

local function write_sums(key, fields)
  for field, sum in pairs(fields) do
    if sum[1] ~= 0 or sum[2] ~= 0 then redis.call('HINCRBY', key, field, text(sum[1], sum[2])) end
  end
end

local function used(kind, tokens, cost_hi, cost_lo)
  if kind == REQUESTS then return 0, 1 end
  if kind == THIRD then return cost_hi, cost_lo end
  local hi = math.floor(tokens / BASE)
  return hi, tokens - hi * BASE
end

-- As limits.give_back: from the last that was taken to the first; what is over goes to the last.
local function settle_tokens(taken, tokens)
  local over = tokens
  for _, rate in ipairs(taken) do over = over - rate[4] end
  for index = #taken, 1, -1 do
    local by = math.max(over, -taken[index][4])
    correct_window(taken[index][1], taken[index][3], by)
    over = over - by
    if over >= 0 then return end
  end
end

local function settle_rates(call_id, rates, tokens)
  local taken = {}
  for _, rate in ipairs(rates) do
    if rate[2] == THIRD then
      give_places(call_id, rate)
    elseif rate[2] == TOKENS then
      taken[rate[1]] = taken[rate[1]] or {}
      table.insert(taken[rate[1]], rate)
    end
  end
  for _, each in pairs(taken) do settle_tokens(each, tokens) end
end

local function give_quota(found, quota)
  local key = quota_key(found[3], quota[1])
  if key then add(key, found[1] == EXPIRED and 'expired' or 'held', negated(quota[3], quota[4])) end
  return key
end

local function settle_quotas(found, tokens, cost_hi, cost_lo)
  local counted = {}
  for _, quota in ipairs(found[5]) do
    local key = give_quota(found, quota)
    if key and not counted[key] then
      counted[key] = true
      add(key, 'spent', used(quota[2], tokens, cost_hi, cost_lo))
    end
  end
end

local function give_rates(call_id, rates)
  for _, rate in ipairs(rates) do
    if rate[2] == THIRD then
      give_places(call_id, rate)
    else
      correct_window(rate[1], rate[3], -rate[4])
    end
  end
end

local function forget(call_id, found)
  redis.call('DEL', 'pst:r:' .. call_id)
  local member = found[2] .. ' ' .. call_id
  redis.call('ZREM', found[1] == EXPIRED and 'pst:expired' or 'pst:expiries', member)
end

-- While counters are being made, whoever makes them may have seen this call as open; and an enrolment
-- that is sent twice must not begin the call anew.
local function remember(call_id, enrolled, tokens, cost_hi, cost_lo)
  if making or enrolled then
    redis.call('SET', 'pst:r:' .. call_id, cmsgpack.pack({SETTLED, tokens, cost_hi, cost_lo}), 'EX', KEPT_S)
  end
end

local function settle(call_id, tokens, cost_hi, cost_lo)
  local found = reservation(call_id)
  if found and found[1] == SETTLED then return end
  if found then
    settle_rates(call_id, found[4], tokens)
    settle_quotas(found, tokens, cost_hi, cost_lo)
    forget(call_id, found)
  end
  remember(call_id, found and found[6] == 1, tokens, cost_hi, cost_lo)
end

local function release(call_id)
  local found = reservation(call_id)
  if found and found[1] == SETTLED then return end
  if found then
    give_rates(call_id, found[4])
    for _, quota in ipairs(found[5]) do give_quota(found, quota) end
    forget(call_id, found)
  end
  remember(call_id, found and found[6] == 1, NONE, 0, 0)
end

local function parted(rows, tag)
  local kept, given = {}, {}
  for _, row in ipairs(rows) do table.insert(row[5] == tag and given or kept, row) end
  return kept, given
end

local function undo(call_id, tag)
  local found = reservation(call_id)
  if not found or found[1] == SETTLED then return end
  local rates, quotas
  found[4], rates = parted(found[4], tag)
  found[5], quotas = parted(found[5], tag)
  give_rates(call_id, rates)
  for _, quota in ipairs(quotas) do give_quota(found, quota) end
  if #found[4] + #found[5] > 0 then
    keep(call_id, found)
  else
    forget(call_id, found)
  end
end

local function enrol_rates(call_id, found, tag, began, lives_s, rates)
  for _, rate in ipairs(rates) do
    local name, kind, _, asked = unpack(rate)
    if kind == THIRD then
      take_places(name, call_id, tag, asked, began + lives_s)
    else
      begin_window(name, math.floor(now))
      correct_window(name, math.floor(began), asked)
    end
    table.insert(found[4], {name, kind, math.floor(began), asked, tag})
  end
end

-- Where the counters were made anew since, they were made with this call in them, or the ledger corrects them.
local function enrol_quotas(found, tag, epoch, quotas)
  if found[3] ~= epoch or redis.call('GET', 'pst:epoch') ~= epoch then return end
  for _, quota in ipairs(quotas) do
    local key = quota_key(epoch, quota[1])
    if key then
      add(key, 'held', quota[3], quota[4])
      table.insert(found[5], {quota[1], quota[2], quota[3], quota[4], tag})
    end
  end
end

local function enrol(call_id, tag, process, epoch, steady_then, lives_s, rates, quotas)
  local found = reservation(call_id) or {ALIVE, process, epoch, {}, {}, 1}
  if found[1] ~= ALIVE then return end
  for _, part in ipairs({found[4], found[5]}) do
    for _, row in ipairs(part) do
      if row[5] == tag then return end
    end
  end
  local began = math.min(steady_then + offset, now)
  found[6] = 1
  enrol_rates(call_id, found, tag, began, lives_s, rates)
  enrol_quotas(found, tag, epoch, quotas)
  keep(call_id, found)
  redis.call('ZADD', 'pst:expiries', began + lives_s, process .. ' ' .. call_id)
  redis.call('EXPIRE', 'pst:expiries', KEPT_S)
end

local becomes = {[SETTLE] = settle, [RELEASE] = release, [UNDO] = undo, [ENROL] = enrol}
for _, ending in ipairs(ends) do becomes[ending[1]](unpack(ending, 2)) end
for name, found in pairs(corrections) do write_corrections(name, found) end
for key, fields in pairs(sums) do write_sums(key, fields) end
return #ends
