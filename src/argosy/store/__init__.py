"""Durable state: API keys, what each request cost, files and batches, in one SQLite file.

Belongs here: tables, migrations, queries, and the thread that writes usage behind the requests.
Does not: deciding who may ask for what, reading clocks (callers give `now_s`), printing.
Read `schema.py` first: it opens the file and is the only place that knows SQLite; the others speak
SQLAlchemy Core, so that PostgreSQL can take its place.
"""
