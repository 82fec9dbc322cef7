"""What the simulator says of a live fleet of this machine, beside what the live gateway measured.

`live.py` asks a real `argosy up`, `replayed.py` simulates what was asked, `foreign.py` says what
else the machine did, `figures.py` makes the table. Begin with `__main__.py`.
"""
