-- Ends an admission: frees the slots, turns reserved money into spent money, corrects the token buckets.
--
-- KEYS and kinds as in admit.lua. ARGV: lease id, reserved tokens, reserved nano-USD, used tokens, used nano-USD,
-- then for each check: kind and limit. Settling twice changes nothing the second time for slots and money.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease = ARGV[1]
local reserved_tokens, reserved_cost = tonumber(ARGV[2]), ARGV[3]
local used_tokens, used_cost = tonumber(ARGV[4]), ARGV[5]
local MINUTE = 60000000

for i, key in ipairs(KEYS) do
  local kind, limit = ARGV[4 + 2 * i], tonumber(ARGV[5 + 2 * i])
  if kind == 't' then
    local full_at = tonumber(redis.call('GET', key) or '0')
    local after = math.max(full_at, now) + (used_tokens - reserved_tokens) * MINUTE / limit
    if after > now then
      -- More than a minute of debt would lock a caller out for one long answer.
      redis.call('SET', key, string.format('%.0f', math.min(after, now + 2 * MINUTE)), 'PX', 121000)
    else
      redis.call('DEL', key)
    end
  elseif kind == 'c' then
    redis.call('ZREM', key, lease)
  elseif kind == 'b' and redis.call('EXISTS', key) == 1 then
    if redis.call('ZREM', key .. ':leases', lease .. ':' .. reserved_cost) == 1 then
      redis.call('HINCRBY', key, 'reserved', '-' .. reserved_cost)
    end
    redis.call('HINCRBY', key, 'spent', used_cost)
  end
end
return 1
