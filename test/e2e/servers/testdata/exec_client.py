# SPDX-License-Identifier: Apache-2.0
"""A program that makes calls and then becomes another one, which makes more at once. It knows nothing of tracing."""

import http.client
import os
import sys

address, prefix, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
conn = http.client.HTTPConnection(address)
for n in range(calls):
    conn.request("GET", f"{prefix}{n}")
    conn.getresponse().read()
os.execv(sys.argv[4], sys.argv[4:])
