"""The APIs that clients speak, one file each; all that differs between them is in here.

A surface reads its own request into an `Ask` (the OpenAI shape, which every replica speaks) and
writes the replica's events in its own shape. A new API is one more file and one line in
`registry.py`. Read `port.py` first, then `messages.py` as the fullest example.
"""
