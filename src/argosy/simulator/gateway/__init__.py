"""The gateway in virtual time: admission, routing and what answers teach, compiled.

Belongs here: all that the live gateway's `Admission`, `Router` and `PoolRates` do for a request,
over arrays. Does not: the arithmetic that decides, which is the policies' own text, compiled from
`policies/` (`texts.py`); when events happen, which is the driver's; replicas, which are
`simulator/engine`'s. Read `state.py`, then `gateway.py`, which a driver calls. `tests/laws` and
`tests/agreement` hold each part, and the whole, to the live code.
"""
