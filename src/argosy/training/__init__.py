"""Training runs: text to packed tokens, islands that train on them, and what passes between them.

`data/` makes and reads packed tokens. `inner.py` is the port of an island's inside: whatever takes
parameters and blocks and gives parameters back; `torch_island/` is the one in PyTorch. `outer/` is
the arithmetic between islands: fragments, codec, the outer step. `syncer/` closes rounds, leases
tokens and writes the ledger; `island/` is its other side: it joins, trains, sends deltas. Read
`wire.py` first: all that passes between an island and the syncer is there.
"""
