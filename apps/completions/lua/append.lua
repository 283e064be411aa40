-- Appends numbered entries to a log; those it has already are left out, so that an append may be repeated.
-- KEYS[1] the stream. ARGV: seconds to keep it, then pairs of number and entry.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local have = 0
if last[1] then have = tonumber(string.match(last[1][1], '^(%d+)')) end
for i = 2, #ARGV, 2 do
  if tonumber(ARGV[i]) > have then
    redis.call('XADD', KEYS[1], ARGV[i] .. '-0', 'e', ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
