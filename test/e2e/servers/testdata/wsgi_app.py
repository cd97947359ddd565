# SPDX-License-Identifier: Apache-2.0
"""An ordinary WSGI application. It knows nothing of tracing."""

import time
from http.client import responses


def app(environ, start_response):
    kind, *rest = environ["PATH_INFO"].strip("/").split("/")
    code, body = 200, None
    if kind == "item":
        body = f"item {rest[0]}\n".encode()
    elif kind == "upload":
        body = b"%d\n" % len(environ["wsgi.input"].read())
    elif kind == "status":
        code, body = int(rest[0]), b""
    elif kind == "sleep":
        time.sleep(int(rest[0]) / 1000)
        body = b"slept\n"
    elif kind == "chunked":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"chunk %d\n" % i for i in range(int(rest[0])))
    else:
        code, body = 404, b"not found\n"
    headers = [("Content-Type", "text/plain")]
    if code not in (204, 304):
        headers.append(("Content-Length", str(len(body))))
    start_response(f"{code} {responses[code]}", headers)
    return [body]
