"""Argosy: one fleet out of many clouds and chips, for large language models.

Read `docs/ARCHITECTURE.md` first; it names the rooms and says which imports which.
"""
