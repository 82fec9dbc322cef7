"""Decisions, as pure functions: what is known comes in, a decision with its reason goes out.

The live system calls these; a simulator can call the same. No policy imports another.
Read `routing/views.py`, then `routing/predicted.py` first.
"""
