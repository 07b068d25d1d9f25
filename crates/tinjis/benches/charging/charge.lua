-- wrk's script: each request is a charge as billing sends it, with an Idempotency-Key that no other has and that, as
-- billing's, comes in no order: keys in order would spare the ledger's index what billing's cost it.
-- Knows nothing of answers but whether wrk counts them as errors.

local bit = require("bit")
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("id", threads)
end

function init(args)
  counter = 0
  salt = args[1] or "0"
  headers = { ["Content-Type"] = "application/json" }
end

-- The product's lower 32 bits; a number of Lua holds 53.
local function times(a, b)
  local low, high = bit.band(a, 0xffff), bit.rshift(a, 16)
  return bit.tobit(low * b + bit.lshift(bit.tobit(high * b), 16))
end

-- One number for another, far from its neighbours' (the last step of MurmurHash3).
local function spread(number)
  number = times(bit.bxor(number, bit.rshift(number, 16)), 0x85ebca6b)
  number = times(bit.bxor(number, bit.rshift(number, 13)), 0xc2b2ae35)
  return bit.bxor(number, bit.rshift(number, 16))
end

function request()
  counter = counter + 1
  local first = bit.tohex(spread(bit.tobit(counter * 16 + id)))
  headers["Idempotency-Key"] = string.format("%s%02x%06x%s", first, id, counter % 0x1000000, salt)
  local body = string.format(
    '{"id":"W%d-%d","invoice_id":%d,"customer_id":%d,"currency":"EUR","value":12.15}',
    id, counter, counter, counter % 100 + 1)
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("charged=%d in_us=%d errors=%d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
