"""Serving and faults in virtual time: what would happen if.

Belongs here: requests, replicas and their failures as discrete events, with the policies of
`policies/`. Does not: how fast a step is (`perf`), what a chip costs (`fleet/catalogue`), reading
a user's files and drawing (`cli`).
"""
