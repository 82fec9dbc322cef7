"""What the store raises: it cannot be used, or whoever writes is not the leader any more."""


class StoreError(Exception):
    """The store cannot be used as it is; the message says why and what would work."""


class FencedError(Exception):
    """Another holder has the lease, or nobody: nothing was written, and nothing will be.

    No StoreError: that one may pass, this one never does.
    """
