# SPDX-License-Identifier: Apache-2.0

# An ordinary Rack application. It knows nothing of tracing.
app = lambda do |env|
  kind, first = env['PATH_INFO'].split('/').drop(1)
  case kind
  when 'item' then [200, {}, ["item #{first}\n"]]
  when 'upload' then [200, {}, ["#{env['rack.input'].read.bytesize}\n"]]
  when 'status' then [first.to_i, {}, []]
  when 'sleep'
    sleep first.to_i / 1000.0
    [200, {}, ["slept\n"]]
  when 'chunked'
    [200, {}, Enumerator.new { |out| first.to_i.times { |i| out << "chunk #{i}\n" } }]
  else [404, {}, ["not found\n"]]
  end
end

run app
