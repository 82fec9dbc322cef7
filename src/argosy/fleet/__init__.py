"""The nouns: what a fleet file says, and the messages that rooms send to each other.

Belongs here: frozen Structs, units, parsing of text into Structs. Does not: files, sockets,
clocks, decisions. Read `config.py` first (what an operator writes), then `messages.py`.
"""
