# SPDX-License-Identifier: Apache-2.0
# A Rack application that asks PostgreSQL for each request. It knows nothing of tracing. GET /SHAPE/ID executes statements with
# columns that are called call_ID_N.
require "pg"

HOST, PORT = ENV.fetch("DATABASE").split(":")
IDLE = Queue.new
64.times { IDLE << PG.connect(host: HOST, port: PORT, user: "postgres", dbname: "postgres") }

# The first has its argument apart from the text.
def ask(id, n)
  conn = IDLE.pop
  seconds = (rand * 0.003).round(4)
  if n == 0
    conn.exec_params("SELECT pg_sleep($1) AS call_#{id}_#{n}", [seconds])
  else
    conn.exec("SELECT pg_sleep(#{seconds}) AS call_#{id}_#{n}")
  end
  IDLE << conn
end

run lambda { |env|
  _, _, id = env["PATH_INFO"].split("/")
  ask(id, 0)
  ask(id, 1)
  [200, { "content-type" => "text/plain" }, ["done\n"]]
}
