"""Seconds, bytes, joules and dollars of a (model, chip, layout, engine), each with its error bar.

Belongs here: step times from rooflines, what fits into memory, their calibration by measurements.
Does not: queues and arrivals (`simulator`), the chips' own figures (`fleet/catalogue`). Read
`step_time.py` first: it is what the simulator is given.
"""
