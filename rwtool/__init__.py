"""Region-wise maps, losses and evaluation for 3D biomedical image segmentation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rwtool.check import CaseCheck, SignCount, check_maps, gradient_signs
    from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError
    from rwtool.evaluate import evaluate_files
    from rwtool.geometry import Geometry
    from rwtool.io import Volume, read_image, read_labels, write
    from rwtool.maps import ac_map, boundary_map, constant_map, expand_packed, hd_map, rectify, rrw_map
    from rwtool.mapset import read_map
    from rwtool.metrics import (
        ClassMetrics,
        assd_mm,
        diagonal_mm,
        dice,
        directed_distances_mm,
        evaluate_labels,
        hd95_mm,
        hd_mm,
        masd_mm,
        nsd,
    )
    from rwtool.stats import PairedTest, paired_permutation_test

# Names are imported when they are first used, so that `import rwtool` and the command line start at once.
_HOME = {
    "check": ("CaseCheck", "SignCount", "check_maps", "gradient_signs"),
    "errors": ("GeometryError", "RwtoolError", "UsageError", "VolumeError"),
    "evaluate": ("evaluate_files",),
    "geometry": ("Geometry",),
    "io": ("Volume", "read_image", "read_labels", "write"),
    "maps": ("ac_map", "boundary_map", "constant_map", "expand_packed", "hd_map", "rectify", "rrw_map"),
    "mapset": ("read_map",),
    "metrics": (
        "ClassMetrics",
        "assd_mm",
        "diagonal_mm",
        "dice",
        "directed_distances_mm",
        "evaluate_labels",
        "hd95_mm",
        "hd_mm",
        "masd_mm",
        "nsd",
    ),
    "stats": ("PairedTest", "paired_permutation_test"),
}

__all__ = [
    "CaseCheck",
    "ClassMetrics",
    "Geometry",
    "GeometryError",
    "PairedTest",
    "RwtoolError",
    "SignCount",
    "UsageError",
    "Volume",
    "VolumeError",
    "__version__",
    "ac_map",
    "assd_mm",
    "boundary_map",
    "check_maps",
    "constant_map",
    "diagonal_mm",
    "dice",
    "directed_distances_mm",
    "evaluate_files",
    "evaluate_labels",
    "expand_packed",
    "gradient_signs",
    "hd95_mm",
    "hd_map",
    "hd_mm",
    "masd_mm",
    "nsd",
    "paired_permutation_test",
    "read_image",
    "read_labels",
    "read_map",
    "rectify",
    "rrw_map",
    "write",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"rwtool.{module}"), name)
    raise AttributeError(f"module 'rwtool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
