"""An island's side of the wire: it joins, trains on its leases, sends deltas, takes versions up.

Belongs here: what every island does, whatever trains inside it (`training/inner.py`). Does not: the
framework, the arithmetic (`outer/`), data. Read `loop.py` first; `link.py` speaks to the syncer,
`reference.py` is the smallest island there is, in numpy, and the example for others.
"""
