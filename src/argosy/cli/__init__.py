"""The commands: one file a verb. The only room that wires others together.

Belongs here: arguments, what is printed, exit codes, and the calendar and environment that the
other rooms are handed. Read `main.py` first, then `up.py`, which starts a fleet.
"""
