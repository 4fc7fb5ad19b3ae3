"""The one error family: what a user can mend. Everything else is a bug and keeps its traceback.

A message is one line: what was found and where, what was expected, and how to mend it. It names parameters as a call
does, ``overwrite=True``; the command line turns them into its options.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence


class RwtoolError(Exception):
    """A problem whose message says what was found, what was expected and how to mend it.

    It quotes what stands in files, which may be of any length: a line of it that nobody would read to its end is cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut_lines(message))


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


def cut_lines(text: str) -> str:
    """Leave out the middle of lines of more than 5,000 characters, which a path and all classes of an atlas fit in.

    >>> cut_lines("a" * 6000 + "z").replace("a" * 3500, "a...").replace("a" * 999, "...a")
    'a... [1,501 characters] ...az'
    """
    if len(text) <= _LONGEST:
        return text
    return "\n".join(map(_cut, text.split("\n")))


def _cut(line: str) -> str:
    more = len(line) - _FIRST - _LAST
    return line if len(line) <= _LONGEST else f"{line[:_FIRST]} [{more:,} characters] {line[-_LAST:]}"


_LONGEST, _FIRST, _LAST = 5000, 3500, 1000  # characters


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: also one of PyTorch, of a CPU or of a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )


@contextlib.contextmanager
def told_when_interrupted(message: Callable[[], str]) -> Iterator[None]:
    """Give a KeyboardInterrupt the words of what is done and what a rerun does; the innermost block's win."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:
            interrupt.args = (message(),)
        raise
