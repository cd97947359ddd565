# SPDX-License-Identifier: Apache-2.0
"""A server that receives and sends by the system calls that it is told: syscall_server.py RECEIVE SEND."""

import ctypes
import errno
import os
import select
import socket
import sys
import tempfile
import threading

libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]


def mmsghdr(buffer, size):
    iov = Iovec(ctypes.addressof(buffer), size)
    message = Mmsghdr()
    message.hdr.iov, message.hdr.iovlen = ctypes.pointer(iov), 1
    return message


def readv(fd, sizes):
    buffers = [bytearray(n) for n in sizes]
    n = os.readv(fd, buffers)
    return b"".join(buffers)[:n]


def recvmmsg(fd):
    buffer = ctypes.create_string_buffer(65536)
    message = mmsghdr(buffer, len(buffer))
    if libc.recvmmsg(fd, ctypes.byref(message), 1, 0, None) < 0:
        raise OSError(ctypes.get_errno(), "recvmmsg")
    return buffer.raw[: message.len]


def recvmsg_segments(conn):
    buffers = [bytearray(3) for _ in range(60)] + [bytearray(65536)]
    n, _, _, _ = conn.recvmsg_into(buffers)
    return b"".join(buffers)[:n]


def peek(conn):
    conn.recv(10, socket.MSG_PEEK)
    conn.recv(65536, socket.MSG_PEEK)
    return conn.recv(65536)


def nonblocking(conn):
    while True:
        try:
            return conn.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            select.select([conn], [], [])


def empty_first(conn):
    conn.recv(0)
    os.readv(conn.fileno(), [])
    return conn.recv(65536)


def dup(conn):
    other = os.dup(conn.fileno())
    try:
        return os.read(other, 65536)
    finally:
        os.close(other)


RECEIVE = {
    "read": lambda c: os.read(c.fileno(), 65536),
    "read-small": lambda c: os.read(c.fileno(), 7),
    "readv": lambda c: readv(c.fileno(), [5, 11, 65536]),
    "readv-segments": lambda c: readv(c.fileno(), [2] * 63 + [65536]),
    "recvfrom": lambda c: c.recvfrom(65536)[0],
    "recvmsg": lambda c: c.recvmsg(65536)[0],
    "recvmsg-segments": recvmsg_segments,
    "recvmmsg": lambda c: recvmmsg(c.fileno()),
    "peek": peek,
    "nonblocking": nonblocking,
    "empty": empty_first,
    "dup": dup,
}


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def write_small(conn, head, body):
    data = head + body
    for i in range(0, min(len(data), 900), 9):
        write_all(conn.fileno(), data[i:i + 9])
    write_all(conn.fileno(), data[900:])


def sendmmsg(fd, data):
    buffer = ctypes.create_string_buffer(data, len(data))
    message = mmsghdr(buffer, len(data))
    if libc.sendmmsg(fd, ctypes.byref(message), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "sendmmsg")
    assert message.len == len(data)


def by_file(send):
    def head_and_file(conn, head, body):
        write_all(conn.fileno(), head)
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            send(conn.fileno(), file.fileno(), len(body))
    return head_and_file


def sendfile(sock, file, n):
    offset = 0
    while offset < n:
        offset += os.sendfile(sock, file, offset, n - offset)


def splice(sock, file, n):
    source, sink = os.pipe()
    try:
        offset = 0
        while offset < n:
            moved = os.splice(file, sink, n - offset, offset_src=offset)
            offset += moved
            while moved:
                moved -= os.splice(source, sock, moved)
    finally:
        os.close(source)
        os.close(sink)


def partial(conn, head, body):
    """Fills the socket until it takes no more, over and over."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = head + body
    while data:
        try:
            data = data[conn.send(data, socket.MSG_DONTWAIT):]
        except OSError as e:
            if e.errno != errno.EAGAIN:
                raise
            select.select([], [conn], [])


def corked(conn, head, body):
    conn.send(head, socket.MSG_MORE)
    conn.send(body)


SEND = {
    "write": lambda c, h, b: write_all(c.fileno(), h + b),
    "write-small": write_small,
    "writev": lambda c, h, b: os.writev(c.fileno(), [h, b]),
    "writev-segments": lambda c, h, b: os.writev(c.fileno(), [h[i:i + 1] for i in range(60)] + [h[60:], b]),
    "sendto": lambda c, h, b: c.sendall(h + b),
    "sendmsg": lambda c, h, b: c.sendmsg([h, b]),
    "sendmmsg": lambda c, h, b: sendmmsg(c.fileno(), h + b),
    "sendfile": by_file(sendfile),
    "splice": by_file(splice),
    "partial": partial,
    "corked": corked,
}


def serve(conn, receive, send):
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with conn:
        data = b""
        while chunk := receive(conn):
            data += chunk
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                kind, first = (head.split()[1].split(b"/") + [b"", b""])[1:3]
                body = b"item %s\n" % first if kind == b"item" else bytes(int(first))
                head = b"HTTP/1.1 200 OK\r\nServer: by-the-book\r\nContent-Type: text/plain\r\n" \
                       b"Content-Length: %d\r\n\r\n" % len(body)
                send(conn, head, body)


listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn, RECEIVE[sys.argv[1]], SEND[sys.argv[2]]), daemon=True).start()
