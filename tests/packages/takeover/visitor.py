"""Visits a website over and over, each time on a new connection, and prints how long no visit succeeded whenever that is longer
than before. Arguments: the name, and the file of the authority.
"""

import http.client
import ssl
import sys
import time

context = ssl.create_default_context(cafile=sys.argv[2])
longest, last = 0.0, None
while True:
    try:
        connection = http.client.HTTPSConnection(sys.argv[1], timeout=2, context=context)
        connection.request("GET", "/")
        good = connection.getresponse().status == 200
        connection.close()
    except OSError:
        good = False
    now = time.monotonic()
    if good:
        if last is not None and now - last > longest:
            longest = now - last
            print(f"away for {longest:.2f}", flush=True)
        last = now
    time.sleep(0.05)
