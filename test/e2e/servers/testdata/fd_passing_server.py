# SPDX-License-Identifier: Apache-2.0
"""A server whose first process accepts connections and hands them to a worker over a Unix socket."""

import os
import socket
import threading


def serve(conn):
    with conn:
        data = b""
        while chunk := conn.recv(65536):
            data += chunk
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                body = b"item %s\n" % head.split()[1].rsplit(b"/")[-1]
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def worker(channel):
    while True:
        _, fds, _, _ = socket.recv_fds(channel, 1, 1)
        if not fds:
            return
        threading.Thread(target=serve, args=(socket.socket(fileno=fds[0]),), daemon=True).start()


here, there = socket.socketpair()
if os.fork() == 0:
    here.close()
    worker(there)
    os._exit(0)
there.close()

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    conn, _ = listener.accept()
    socket.send_fds(here, [b"x"], [conn.fileno()])
    conn.close()
