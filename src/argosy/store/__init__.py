"""Durable state: keys, usage, files and batches; leases, and what leaders leave for each other.

Belongs here: tables, migrations, queries, and the threads that write behind the requests and behind
the leader. Does not: deciding who may ask for what or what runs where, reading hosts' clocks
(callers give `now_s`; leases go by the database's), printing.
Read `schema.py` first: it opens the store, in SQLite's file or in PostgreSQL. What only one of them
knows is in `sqlite.py` and `postgresql.py`; the others speak SQLAlchemy Core.
"""
