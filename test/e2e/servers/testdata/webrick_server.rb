# SPDX-License-Identifier: Apache-2.0

# An ordinary WEBrick server. It knows nothing of tracing.
require 'webrick'

server = WEBrick::HTTPServer.new(
  BindAddress: '127.0.0.1', Port: ENV.fetch('PORT').to_i, MaxClients: 200,
  AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN),
  # Without it each answer waits for the client's delayed acknowledgement.
  AcceptCallback: ->(socket) { socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1) }
)

server.mount_proc '/' do |req, res|
  kind, first = req.path.split('/').drop(1)
  case kind
  when 'item' then res.body = "item #{first}\n"
  when 'upload' then res.body = "#{(req.body || '').bytesize}\n"
  when 'status' then res.status = first.to_i
  when 'sleep'
    sleep first.to_i / 1000.0
    res.body = "slept\n"
  when 'chunked'
    res.chunked = true
    res.body = proc { |out| first.to_i.times { |i| out.write("chunk #{i}\n") } }
  else
    res.status = 404
    res.body = "not found\n"
  end
end

trap('TERM') { server.shutdown }
server.start
