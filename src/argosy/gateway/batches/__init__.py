"""Batches: files and batches in OpenAI's and Anthropic's shapes, and what sends their items.

Belongs here: `/v1/files`, `/v1/batches`, `/v1/messages/batches`, the reading of input files, the
runner. Does not: the tables (it is given a `FileStore`, a `BatchBook` and a `BatchDesk`), what an
item means: each is sent to the gateway's own URL and goes the way of any request.
Read `api.py` first, then `runner.py` and `sender.py`.
"""
