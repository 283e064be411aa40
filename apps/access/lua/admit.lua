-- Admits one request against all its limits at once, or says which one refuses; all or nothing.
--
-- KEYS[i]  the i-th check's key: a bucket (string), slots (sorted set) or a budget (hash)
-- ARGV     lease id, lease milliseconds, tokens, cost in nano-USD, then for each check: kind and limit
--   kind r  requests a minute   (GCRA: one number, the time at which the bucket is full again)
--   kind t  tokens a minute     (the same, by tokens)
--   kind c  slots               (lease id -> when it expires)
--   kind b  nano-USD a month    (hash: month, spent, reserved; leases in a sorted set beside it, KEYS[i]..':leases')
-- With an empty lease id it only looks (for the headers of replies that spend nothing).
-- Returns {status, check, retry_after_ms, then for each check: remaining, ms until full}; status is 'ok', 'refused',
-- 'never' (greater than the whole limit) or 'unknown' (a budget whose spend must be loaded from the ledger).

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]          -- microseconds, server time
local lease, lease_us = ARGV[1], tonumber(ARGV[2]) * 1000
local tokens, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
local MINUTE = 60000000
local look = lease == ''
local out = {'ok', 0, 0}
local writes = {}
local buckets = {}                               -- where in `out`, interval, full at: before and after

local function refuse(status, check, retry_us)
  if out[1] == 'ok' then
    out[1], out[2], out[3] = status, check, math.ceil(retry_us / 1000)
  end
end

local function month_now()
  -- days since 1970 to a civil year and month (H. Hinnant, "chrono-compatible low-level date algorithms")
  local z = math.floor(time[1] / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d', year, month)
end

for i, key in ipairs(KEYS) do
  local kind, limit = ARGV[3 + 2 * i], tonumber(ARGV[4 + 2 * i])
  if kind == 'r' or kind == 't' then
    local amount = kind == 'r' and 1 or tokens
    local interval = MINUTE / limit
    local full_at = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local after = full_at + (look and 0 or amount * interval)
    if not look and after - MINUTE > now + 1 then
      refuse(amount > limit and 'never' or 'refused', i, after - MINUTE - now)
    end
    writes[#writes + 1] = {'SET', key, string.format('%.0f', after), 'PX', 61000}
    buckets[#buckets + 1] = {#out + 1, interval, full_at, after}
    out[#out + 1] = 0
    out[#out + 1] = 0
  elseif kind == 'c' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local used = redis.call('ZCARD', key)
    if not look and used >= limit then refuse('refused', i, 1000000) end
    writes[#writes + 1] = {'ZADD', key, string.format('%.0f', now + lease_us), lease}
    writes[#writes + 1] = {'PEXPIRE', key, math.ceil(lease_us / 1000) + 1000}
    out[#out + 1] = math.max(0, limit - used)
    out[#out + 1] = 0
  else
    local leases = key .. ':leases'
    if redis.call('HGET', key, 'month') ~= month_now() or redis.call('HEXISTS', key, 'loading') == 1 then
      if not look then refuse('unknown', i, 0) end
      out[#out + 1], out[#out + 2] = 0, 0
    else
      for _, old in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
        redis.call('ZREM', leases, old)
        redis.call('HINCRBY', key, 'reserved', '-' .. string.match(old, ':(%d+)$'))
      end
      local used = tonumber(redis.call('HGET', key, 'spent')) + tonumber(redis.call('HGET', key, 'reserved'))
      if not look and (used >= limit or used + cost > limit) then refuse('refused', i, 0) end
      local reservation = lease .. ':' .. string.format('%.0f', cost)
      writes[#writes + 1] = {'HINCRBY', key, 'reserved', string.format('%.0f', cost)}
      writes[#writes + 1] = {'ZADD', leases, string.format('%.0f', now + lease_us), reservation}
      -- As long as the budget itself: without its leases nobody would take back what a killed process reserved.
      writes[#writes + 1] = {'PEXPIRE', leases, 3000000000}
      out[#out + 1] = math.max(0, limit - used)
      out[#out + 1] = 0
    end
  end
end

for _, bucket in ipairs(buckets) do
  local at, interval = bucket[1], bucket[2]
  local full_at = out[1] == 'ok' and bucket[4] or bucket[3]
  out[at] = math.max(0, math.floor((now + MINUTE - full_at) / interval + 0.000001))
  out[at + 1] = math.ceil((full_at - now) / 1000)
end

if out[1] == 'ok' and not look then
  for _, write in ipairs(writes) do redis.call(unpack(write)) end
end
return out
