-- Applies one partition's alerts to Redis, once, in order. The caller is topologies/router.py, the keys are
-- told in topologies/REDIS.md.
--
-- KEYS  fence, alerts, active, geo, counters; then the route streams; then one alert:<source> for each alert
-- ARGV  partition; offset and index that the caller knows to be applied ('' if none); most entries of a stream;
--       number of route streams; the alerts' heads as one JSON array; then one record for each alert
-- Returns {applied, fence before, fence after}; {-1, fence, fence} if the fence lies before what the caller
-- knows to be applied (Redis lost writes); or an error, and then no stream, counter or fence has changed.
--
-- Redis undoes nothing when a script fails half way. So whatever may be refused is tried first by something
-- that may be repeated: types are looked at, then the state of the sources is set, and only then follow the
-- entries of streams, which may not be repeated, and counters and fence with a command that has worked before.
--
-- One call of a command costs about as much as all the arithmetic of an alert: what may be said of many
-- sources at once is, and numbers go as they are (the server writes whole ones without a point).

local fence_key, alerts_key, active_key, geo_key, counters_key = unpack(KEYS, 1, 5)
local partition, max_stream, n_routes = ARGV[1], ARGV[4], tonumber(ARGV[5])
local heads = cjson.decode(ARGV[6])
local n_fixed = 5 + n_routes

local function typed(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. wanted)
  end
end

local function check_types()
  local wrong = typed(fence_key, 'hash') or typed(counters_key, 'hash')
    or typed(active_key, 'zset') or typed(geo_key, 'zset') or typed(alerts_key, 'stream')
  for i = 6, n_fixed do
    wrong = wrong or typed(KEYS[i], 'stream')
  end
  return wrong -- that the sources are hashes shows when they are set
end

local wrong = check_types()
if wrong then
  return wrong
end

-- The fence: nothing at or below it is applied again.
local before = redis.call('HGET', fence_key, partition) or ''
local offset, index = string.match(before, '^(%d+):(%d+)$')
offset, index = tonumber(offset) or -1, tonumber(index) or -1

local function beyond(an_offset, an_index)
  return an_offset > offset or (an_offset == offset and an_index > index)
end

if ARGV[2] ~= '' and beyond(tonumber(ARGV[2]), tonumber(ARGV[3])) then
  return {-1, before, before}
end
local first = 1
while first <= #heads and not beyond(heads[first][1], heads[first][2]) do
  first = first + 1
end
if first > #heads then
  return {0, before, before}
end

-- The state of the sources.
local level_changes = {['raise'] = true, ['escalate'] = true, ['de-escalate'] = true, ['clear'] = true}

local function text(number)
  if number == '' or number == math.floor(number) then
    return number
  end
  return string.format('%.14g', number)
end

local scores, places = {}, {}

-- Hiding has ended, but perhaps not all: a red alert is shown behind a shelf, a window may be still to come.
local function forget_ended(key, event_ms)
  for _, what in ipairs({'shelved', 'suppressed'}) do
    local until_ms = tonumber(redis.call('HGET', key, what .. '_until_ms') or '')
    if until_ms and until_ms <= event_ms then
      redis.call('HDEL', key, what .. '_by', what .. '_until_ms')
    end
  end
end

local function set_source(i)
  local _, _, fields, _, place, district, done, gone = unpack(heads[i])
  local source, event_ms, score, level, transition, alert_id, seq, since, category, sentence, cause = unpack(fields)
  local key = KEYS[n_fixed + i]
  if level_changes[transition] then
    -- first what a full server refuses: once a script has written, it lets everything through
    redis.call('HSET', key, 'alert_id', alert_id, 'seq', seq, 'transition', transition, 'level', level,
      'score', text(score), 'since', since, 'updated', event_ms, 'cause', cause,
      'category', category, 'district', district, 'text', sentence, 'record', ARGV[6 + i])
    local shown = level ~= 'normal'
    scores[source] = shown and text(score)
    places[source] = shown and #place == 2 and place
  end
  if #done > 0 then
    redis.call('HSET', key, unpack(done))
  end
  if #gone > 0 then
    redis.call('HDEL', key, unpack(gone))
  end
  if cause == 'returned' then
    forget_ended(key, event_ms)
  end
end

for i = first, #heads do
  if heads[i][3][1] ~= '' then
    set_source(i)
  end
end

local function call_with(command, key, arguments)
  if #arguments > 0 then
    redis.call(command, key, unpack(arguments))
  end
end

local shown, hidden, placed, lost = {}, {}, {}, {}
for source, score in pairs(scores) do
  if score then
    shown[#shown + 1] = score
    shown[#shown + 1] = source
  else
    hidden[#hidden + 1] = source
  end
  local place = places[source]
  if place then
    placed[#placed + 1] = place[1]
    placed[#placed + 1] = place[2]
    placed[#placed + 1] = source
  else
    lost[#lost + 1] = source
  end
end
call_with('ZADD', active_key, shown)
call_with('ZREM', active_key, hidden)
call_with('GEOADD', geo_key, placed)
call_with('ZREM', geo_key, lost)

-- The streams. An entry's id is its event time, or the last entry's where that is later: the ids of a
-- partition alone are the same in every run.
local function last_id(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local ms, seq = string.match(info[i + 1], '^(%d+)-(%d+)$')
      return {tonumber(ms), tonumber(seq)}
    end
  end
  if info.err and not string.find(info.err, 'no such key', 1, true) then
    error(info)
  end
  return {0, 0}
end

local last_ids = {[alerts_key] = last_id(alerts_key)}
for i = 6, n_fixed do
  last_ids[KEYS[i]] = last_id(KEYS[i])
end

local function next_id(key, event_ms)
  local last = last_ids[key]
  if event_ms > last[1] then
    last[1], last[2] = event_ms, 0
  else
    last[2] = last[2] + 1
  end
  if last[1] < 1e14 then -- as many digits as Lua writes by itself, and sooner
    return last[1] .. '-' .. last[2]
  end
  return string.format('%.0f-%.0f', last[1], last[2])
end

local counts = {}

local function count(kind, name)
  local of_kind = counts[kind]
  of_kind[name] = (of_kind[name] or 0) + 1
end

for _, kind in ipairs({'transition:', 'level:', 'district:'}) do
  counts[kind] = {}
end
for i = first, #heads do
  local an_offset, an_index, fields, routes, _, district = unpack(heads[i], 1, 6)
  local source, event_ms, _, level, transition = unpack(fields, 1, 5)
  local at = string.format('%s/%.0f/%.0f', partition, an_offset, an_index)
  local function append(key)
    redis.call('XADD', key, 'MAXLEN', '~', max_stream, next_id(key, event_ms), 'at', at, 'source', source,
      'level', level, 'transition', transition, 'record', ARGV[6 + i])
  end
  append(alerts_key)
  for _, route in ipairs(routes) do
    append(KEYS[5 + route])
  end
  count('transition:', transition)
  if level_changes[transition] then
    count('level:', level)
  end
  if district ~= '' then
    count('district:', district)
  end
end

-- Counters and fence.
local totals = {}

local function total(name, n)
  totals[#totals + 1] = name
  totals[#totals + 1] = n + (tonumber(redis.call('HGET', counters_key, name)) or 0)
end

total('alerts', #heads - first + 1)
for kind, of_kind in pairs(counts) do
  for name, n in pairs(of_kind) do
    total(kind .. name, n)
  end
end
redis.call('HSET', counters_key, unpack(totals))
local after = string.format('%.0f:%.0f', heads[#heads][1], heads[#heads][2])
redis.call('HSET', fence_key, partition, after)
return {#heads - first + 1, before, after}
