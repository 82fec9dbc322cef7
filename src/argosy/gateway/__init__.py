"""The data plane: a request in, a replica chosen, bytes streamed back, metered.

Belongs here: sockets, HTTP/1.1, the APIs that clients speak (`surfaces/`), retries before the
first byte. Does not: starting replicas, deciding by itself (that is `policies`), a database.
It routes on the last replica table that it was given and works without the control plane.
Read `server.py` first, then `exchange.py` (the life of one request).
"""
