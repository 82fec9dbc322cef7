"""What can be seen of the live system: metrics, and the last minute of each replica.

Belongs here: the names, labels and buckets of what is measured. Does not: deciding on it.
Read `metrics.py` first.
"""
