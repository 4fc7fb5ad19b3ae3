"""Region-wise maps, losses, training and evaluation for biomedical image segmentation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rwtool.blocks import expand_packed
    from rwtool.check import CaseCheck, SignCount, check_maps, gradient_signs
    from rwtool.comparison import Comparison, compare
    from rwtool.config import TrainConfig
    from rwtool.errors import GeometryError, RwtoolError, UsageError, VolumeError
    from rwtool.evaluate import Evaluation, evaluate_files
    from rwtool.geometry import Geometry
    from rwtool.io import read_image, read_labels, write
    from rwtool.losses import (
        active_contour_loss,
        authors_weight,
        contour_length,
        cross_entropy_loss,
        dice_loss,
        focal_loss,
        gradual_weight,
        hausdorff_loss,
        mix_losses,
        packed_region_wise_loss,
        region_wise_loss,
        weighted_cross_entropy_loss,
    )
    from rwtool.maps import ac_map, boundary_map, constant_map, hd_map, rectify, rrw_map
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
    from rwtool.model import UNet2d
    from rwtool.predict import predict_files
    from rwtool.report import print_report, read_cases_csv, write_report
    from rwtool.rows import Row, Rules
    from rwtool.stats import PairedTest, paired_permutation_test
    from rwtool.study import TrainedRun, train_files
    from rwtool.volume import Volume

# Names are imported when they are first used, so that `import rwtool` and the command line start at once.
_HOME = {
    "blocks": ("expand_packed",),
    "check": ("CaseCheck", "SignCount", "check_maps", "gradient_signs"),
    "comparison": ("Comparison", "compare"),
    "config": ("TrainConfig",),
    "errors": ("GeometryError", "RwtoolError", "UsageError", "VolumeError"),
    "evaluate": ("Evaluation", "evaluate_files"),
    "geometry": ("Geometry",),
    "io": ("read_image", "read_labels", "write"),
    "losses": (
        "active_contour_loss",
        "authors_weight",
        "contour_length",
        "cross_entropy_loss",
        "dice_loss",
        "focal_loss",
        "gradual_weight",
        "hausdorff_loss",
        "mix_losses",
        "packed_region_wise_loss",
        "region_wise_loss",
        "weighted_cross_entropy_loss",
    ),
    "maps": ("ac_map", "boundary_map", "constant_map", "hd_map", "rectify", "rrw_map"),
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
    "model": ("UNet2d",),
    "predict": ("predict_files",),
    "stats": ("PairedTest", "paired_permutation_test"),
    "study": ("TrainedRun", "train_files"),
    "volume": ("Volume",),
    "report": ("print_report", "read_cases_csv", "write_report"),
    "rows": ("Row", "Rules"),
}

__all__ = [
    "CaseCheck",
    "ClassMetrics",
    "Comparison",
    "Evaluation",
    "Geometry",
    "GeometryError",
    "PairedTest",
    "Row",
    "Rules",
    "RwtoolError",
    "SignCount",
    "TrainConfig",
    "TrainedRun",
    "UNet2d",
    "UsageError",
    "Volume",
    "VolumeError",
    "__version__",
    "ac_map",
    "active_contour_loss",
    "assd_mm",
    "authors_weight",
    "boundary_map",
    "check_maps",
    "compare",
    "constant_map",
    "contour_length",
    "cross_entropy_loss",
    "diagonal_mm",
    "dice",
    "dice_loss",
    "directed_distances_mm",
    "evaluate_files",
    "evaluate_labels",
    "expand_packed",
    "focal_loss",
    "gradient_signs",
    "gradual_weight",
    "hausdorff_loss",
    "hd95_mm",
    "hd_map",
    "hd_mm",
    "masd_mm",
    "mix_losses",
    "nsd",
    "packed_region_wise_loss",
    "paired_permutation_test",
    "predict_files",
    "print_report",
    "read_cases_csv",
    "read_image",
    "read_labels",
    "read_map",
    "rectify",
    "region_wise_loss",
    "rrw_map",
    "train_files",
    "weighted_cross_entropy_loss",
    "write",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"rwtool.{module}"), name)
    raise AttributeError(f"module 'rwtool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
