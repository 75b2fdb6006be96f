-- wrk's script: every request is another node's heartbeat; one line of JSON at the end.
local requests, index = {}, 0
function init(args)
  local list = dofile(args[2])
  for number, one in ipairs(list) do
    requests[number] = wrk.format("POST", args[1], {
      ["Host"] = "127.0.0.1", ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. one[1],
    }, one[2])
  end
  index = math.random(1, #requests)
end
function request()
  index = index % #requests + 1
  return requests[index]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "micros": %d, "p50": %d, "p99": %d, "errors": %d}\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status + errors.timeout + errors.connect + errors.read + errors.write))
end
