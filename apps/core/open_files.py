"""Lets a process have as many open files as it may: each request, stream and attempt under way is a socket."""

import resource


def allow_all() -> int:
    """Raise the soft limit to the hard one; how many there may be. Never raises: some systems refuse."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return soft
    return hard
