# SPDX-License-Identifier: Apache-2.0
# A Rack application that makes calls for each request. It knows nothing of tracing.
require "net/http"

HOST, PORT = ENV.fetch("BACKEND").delete_prefix("http://").split(":")

def get(id, n)
  sleep(rand * 0.003)
  http = Thread.current[:backend] ||= Net::HTTP.start(HOST, PORT.to_i)
  http.get("/call/#{id}/#{n}")
end

run lambda { |env|
  _, _, id = env["PATH_INFO"].split("/")
  get(id, 0)
  get(id, 1)
  [200, { "content-type" => "text/plain" }, ["done\n"]]
}
