"""The public door: every name that ``import rwtool`` gives."""

from .errors import (
    GeometryError,
    RwtoolError,
    UsageError,
    VolumeError,
)
from .evaluation.evaluate import (
    Evaluation,
    evaluate_files,
)
from .evaluation.rows import (
    Row,
    Rules,
)
from .io.formats import (
    read_image,
    read_labels,
    write,
)
from .io.geometry import (
    Geometry,
)
from .io.volume import (
    Volume,
)
from .losses import (
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
from .maps.check import (
    CaseCheck,
    SignCount,
    check_maps,
    gradient_signs,
)
from .maps.folder import (
    read_map,
)
from .maps.kinds import (
    ac_map,
    boundary_map,
    constant_map,
    hd_map,
    rectify,
    rrw_map,
)
from .maps.streaming import (
    expand_packed,
)
from .metrics.measures import (
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
from .network.config import (
    TrainConfig,
)
from .network.predict import (
    predict_files,
)
from .network.unet import (
    UNet2d,
)
from .report.csv import (
    read_cases_csv,
)
from .report.write import (
    print_report,
    write_report,
)
from .statistics.comparison import (
    Comparison,
    compare,
)
from .statistics.permutation import (
    PairedTest,
    paired_permutation_test,
)
from .training.study import (
    TrainedRun,
    train_files,
)

__version__: str

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
