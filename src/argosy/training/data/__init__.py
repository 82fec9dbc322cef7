"""Text to packed tokens, and packed tokens to islands.

A dataset is a folder: shards of blocks of `context_tokens + 1` token ids, a bitmap of where
documents begin in each, the tokenizer, and `manifest.json`, which says what all of it is and where
it came from. `prepare.py` makes one out of a recipe, stage by stage; `reader.py` opens one, and
with `order.py` turns any position of a run into its block. Reading needs numpy alone; making needs
the library `tokenizers` too, other places than folders need fsspec. Neither needs PyTorch. Read
`manifest.py` first.
"""
