-- Rebuilds a budget's counter from the ledger, in two steps with the reading of the ledger between them.
--
-- KEYS[1] the budget's hash. ARGV: 'begin' or 'finish', a token, the month (YYYY-MM), nano-USD found (finish).
-- Between the steps settlements are added to `spent` already, so nothing is lost; what is both settled and read in
-- that moment counts twice, which errs on the side of the budget. A loader that died is replaced after 5 s.
-- Returns 1: go on; 0: somebody else is loading.

local step, token, month, found = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = tonumber(redis.call('TIME')[1])
if step == 'begin' then
  local loading = redis.call('HGET', KEYS[1], 'loading')
  if loading and tonumber(redis.call('HGET', KEYS[1], 'loading_since')) > now - 5 then return 0 end
  redis.call('DEL', KEYS[1], KEYS[1] .. ':leases')
  redis.call('HSET', KEYS[1], 'loading', token, 'loading_since', now, 'spent', 0, 'reserved', 0)
  redis.call('EXPIRE', KEYS[1], 3000000)
  return 1
end
if redis.call('HGET', KEYS[1], 'loading') ~= token then return 0 end
redis.call('HDEL', KEYS[1], 'loading', 'loading_since')
redis.call('HSET', KEYS[1], 'month', month)
redis.call('HINCRBY', KEYS[1], 'spent', found)
return 1
