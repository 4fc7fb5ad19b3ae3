"""Which core measures distances: this package's own, in C, or `edt` where that was not built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from rwtool.errors import UsageError

Core = Literal["native", "edt"]

LONGEST = 65535
"""Voxels along an axis up to which the native core goes; `edt` does what is longer."""

RELATIVE_ERROR: dict[Core, float] = {"native": 1e-7, "edt": 4e-6}
"""Of a float32 distance, at most: the native core rounds the true one; `edt` 3.1 was within 1.6e-6 wherever tried."""

_VARIABLE = "RWTOOL_CORE"


def chosen_core() -> Core:
    """The native core if it was built, unless the environment variable ``RWTOOL_CORE`` names another.

    Raises
    ------
    UsageError
        The variable names none, or one that was not built.
    """
    asked = os.environ.get(_VARIABLE, "")
    if asked not in ("", "native", "edt"):
        raise UsageError(f"the environment variable {_VARIABLE} is native or edt, or not set; found {asked!r}")
    if asked == "edt":
        return "edt"
    if _native_is_built():
        return "native"
    if asked == "native":
        raise UsageError(
            f"the environment variable {_VARIABLE} asks for the native core, which was not built; install rwtool anew "
            "where there is a C compiler, or unset the variable: edt computes the same numbers"
        )
    return "edt"


def core_for(shape: Sequence[int]) -> Core:
    """Which core measures in a volume of this shape.

    Raises
    ------
    UsageError
        As :func:`chosen_core`.
    """
    core = chosen_core()
    return "edt" if max(shape) > LONGEST else core


def core_version() -> dict[str, str]:
    """What measures distances in this process, for machines that are to give the same bits."""
    return {"distance core": chosen_core()}


def _native_is_built() -> bool:
    try:
        from rwtool.maps import _native  # noqa: F401
    except ImportError:
        return False
    return True
