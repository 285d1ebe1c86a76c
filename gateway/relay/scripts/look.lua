-- What pages and the comparison with the ledger ask, and change.
-- ARGV[1]: {steady, boot, quotas, windows, places, correct, forget}, packed: names of counters, and
-- {counter, hi, lo} to add to what was spent.
-- Answers {figures of quotas or 0, sums of windows, numbers of places}, packed.

local steady, boot, quotas, windows, places, corrections, forgotten = unpack(cmsgpack.unpack(ARGV[1]))
local now = logical(steady, boot)
local epoch = redis.call('GET', 'pst:epoch') or ''
expire(now)

for _, each in ipairs(corrections) do
  local key = quota_key(epoch, each[1])
  if key then redis.call('HINCRBY', key, 'spent', text(each[2], each[3])) end
end
for _, counter in ipairs(forgotten) do redis.call('DEL', 'pst:' .. epoch .. ':' .. counter) end

local figures, sums, numbers = {}, {}, {}
for index, counter in ipairs(quotas) do
  local found = redis.call('HMGET', 'pst:' .. epoch .. ':' .. counter, 'spent', 'held', 'expired')
  figures[index] = found[1] and found or 0
end
for index, name in ipairs(windows) do
  local used = begin_window(name, math.floor(now))
  sums[index] = used
end
for index, name in ipairs(places) do
  redis.call('ZREMRANGEBYSCORE', 'pst:' .. name, '-inf', now)
  numbers[index] = redis.call('ZCARD', 'pst:' .. name)
end
return cmsgpack.pack({figures, sums, numbers})
