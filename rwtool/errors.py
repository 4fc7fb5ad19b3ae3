"""The one error family: what a user can mend. Everything else is a bug and keeps its traceback.

A message is one line: what was found and where, what was expected, and how to mend it. It names parameters as a call
does, ``overwrite=True``; the command line turns them into its options.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence


class RwtoolError(Exception):
    """A problem whose message says what was found, what was expected and how to mend it."""


class UsageError(RwtoolError):
    """The arguments of a call or a command do not fit together (exit code 2)."""


class VolumeError(RwtoolError):
    """A file or an array is not the volume that it should be."""


class GeometryError(VolumeError):
    """Two volumes do not lie on the same grid, or a grid cannot carry distances."""


def shorten(names: Sequence[str]) -> str:
    """List names for people: the first few, and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


_SHOWN = 5  # names in a message


@contextlib.contextmanager
def told_when_interrupted(message: Callable[[], str]) -> Iterator[None]:
    """Give a KeyboardInterrupt the words of what is done and what a rerun does; the innermost block's win."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:
            interrupt.args = (message(),)
        raise
