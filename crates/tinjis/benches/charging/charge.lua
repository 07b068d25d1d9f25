-- wrk's script: each request is a charge as billing sends it, with an Idempotency-Key that no other has.
-- Knows nothing of answers but whether wrk counts them as errors.

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

function request()
  counter = counter + 1
  headers["Idempotency-Key"] = string.format("%s%02x%014x", salt, id, counter)
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
