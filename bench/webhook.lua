-- wrk -s bench/webhook.lua URL -- FILE: each request another body, to the addresses of the file in turn.
local count = 0
function setup(thread)
  thread:set("id", count)
  count = count + 1
end

function init(args)
  paths = {}
  for line in io.lines(args[1]) do paths[#paths + 1] = line end
  n = 0
  pad = string.rep("x", 650)
end

function request()
  n = n + 1
  local body = '{"id": "' .. id .. "-" .. n .. '", "pad": "' .. pad .. '"}'
  return wrk.format("POST", paths[n % #paths + 1], { ["Content-Type"] = "application/json" }, body)
end

function done(summary, latency, _)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("figures %d %d %f %f %f\n", summary.requests, bad, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
