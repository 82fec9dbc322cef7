"""Whether a request may start now, waits, or is refused; and which of those that wait goes next.

Belongs here: the fair queue of one model, the upper bound of what a request uses, the calendar
of budgets. Does not: the counters that several processes share (`gateway/ledger.py`), which
replica answers (`policies/routing.py`). Read `work.py`, then `fair_queue.py`.
"""
