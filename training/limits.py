"""A limit on this process's memory, so that it fails before its machine does."""

from __future__ import annotations

__all__ = ["limit_memory"]


def limit_memory(mebibytes: int) -> None:
    """Let allocations fail beyond ``mebibytes``, where the system can do that."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = mebibytes * 2**20
    # An unprivileged process may not ask for more than its own hard limit.
    resource.setrlimit(
        resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )
