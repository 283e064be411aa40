-- One transition of one circuit breaker, by the server's clock.
--
-- KEYS[1] hash: open_until, probe_until, blocked_until, blocked_version; KEYS[2] list: times of the failures in a row
-- ARGV: step, failures that open, window ms, reset ms, probe ms, provider version, block ms
--   ask    may a call go? Half-open lets one probe through and waits for it at most `probe ms`
--   look   the same without taking the probe
--   fail   a call failed; ok: one succeeded; block: our credentials were refused; reset: a person closes it
-- Returns {state, wait ms, failures in a row}; state: closed, open, probe, blocked.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step, threshold = ARGV[1], tonumber(ARGV[2])
local window, reset, probe = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local version, block = ARGV[6], tonumber(ARGV[7])
local KEEP = 7200000

local function number(field) return tonumber(redis.call('HGET', KEYS[1], field) or '0') end
local function set(...)
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], KEEP)
end

if step == 'reset' then
  redis.call('DEL', KEYS[1], KEYS[2])
elseif step == 'block' then
  set('blocked_until', now + block, 'blocked_version', version)
elseif step == 'fail' then
  local open_until = number('open_until')
  if open_until > 0 then
    -- The probe failed. A late failure of a call from before the opening changes nothing.
    if now >= open_until then
      set('open_until', now + reset)
      redis.call('HDEL', KEYS[1], 'probe_until')
    end
  else
    redis.call('RPUSH', KEYS[2], now)
    redis.call('LTRIM', KEYS[2], -threshold, -1)
    redis.call('PEXPIRE', KEYS[2], window)
    if redis.call('LLEN', KEYS[2]) >= threshold and now - redis.call('LINDEX', KEYS[2], 0) <= window then
      set('open_until', now + reset)
    end
  end
elseif step == 'ok' then
  local open_until = number('open_until')
  if open_until == 0 or now >= open_until then
    redis.call('HDEL', KEYS[1], 'open_until', 'probe_until')
    redis.call('DEL', KEYS[2])
  end
end

local failures = redis.call('LLEN', KEYS[2])
if number('blocked_until') > now and redis.call('HGET', KEYS[1], 'blocked_version') == version then
  return {'blocked', number('blocked_until') - now, failures}
end
local open_until = number('open_until')
if open_until == 0 then return {'closed', 0, failures} end
if now < open_until then return {'open', open_until - now, failures} end
local probe_until = number('probe_until')
if probe_until > now then return {'open', math.min(probe_until - now, 1000), failures} end
if step == 'ask' then
  set('probe_until', now + probe)
  return {'probe', 0, failures}
end
return {'probe', 0, failures}
