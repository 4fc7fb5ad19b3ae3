"""The public door: every name that ``import rwtool`` gives."""

from .datasets.classes import (
    Classes,
)
from .datasets.plan import (
    DataSet,
    LabelFile,
)
from .diagnosis import (
    Advice,
    Diagnosis,
    FolderState,
    Gpus,
    doctor,
)
from .errors import (
    GeometryError,
    RwtoolError,
    UsageError,
    VolumeError,
)
from .evaluation.evaluate import (
    Evaluation,
    EvaluationPlan,
)
from .evaluation.pairing import (
    Run,
)
from .evaluation.rows import (
    Row,
    Rules,
)
from .io.formats import (
    read_image,
    read_labels,
)
from .io.geometry import (
    Geometry,
)
from .io.volume import (
    Header,
    Volume,
)
from .io.write import (
    write,
)
from .losses.functional import (
    active_contour_loss,
    boundary_dou_loss,
    contour_length,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    generalized_surface_loss,
    hausdorff_loss,
    matrix_loss,
    packed_region_wise_loss,
    region_wise_loss,
    weighted_cross_entropy_loss,
)
from .losses.mixing import (
    authors_weight,
    gradual_weight,
    mix_losses,
)
from .losses.module import (
    RegionWiseLoss,
)
from .maps.check import (
    CaseCheck,
    CheckedMaps,
    SignFigure,
)
from .maps.folder import (
    MapSet,
    read_map,
)
from .maps.kinds import (
    ac_map,
    boundary_map,
    constant_map,
    hd_map,
    matrix_map,
    rectify,
    rrw_map,
    skeleton_map,
)
from .maps.make import (
    MadeMaps,
    MapPlan,
    make_maps,
)
from .maps.parameters import (
    MapParameters,
    Storage,
)
from .maps.settings import (
    MapRecord,
)
from .maps.signs import (
    SignCount,
    gradient_signs,
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
from .network.components import (
    keep_largest,
)
from .network.config import (
    TrainConfig,
)
from .network.predict import (
    Predictions,
    PredictPlan,
    predict,
)
from .network.unet import (
    UNet2d,
)
from .parallel import (
    Outcome,
)
from .report.convergence import (
    ConvergenceResults,
    convergence,
)
from .report.csv import (
    read_cases_csv,
)
from .report.results import (
    Results,
    compare,
    evaluate,
)
from .report.write import (
    print_report,
    write_report,
)
from .shards import (
    Shard,
    Share,
    Standing,
)
from .statistics.comparison import (
    Comparison,
    compare_rows,
)
from .statistics.convergence import (
    CollapseTest,
    Convergence,
    EpochSpread,
    MethodConvergence,
    SeedResult,
)
from .statistics.permutation import (
    PairedTest,
    paired_permutation_test,
)
from .training.seeds import (
    TrainedRun,
)
from .training.study import (
    TrainPlan,
    train,
)
from .training.validation import (
    ClassResult,
    Validation,
)
from .views.check import (
    check_maps,
)
from .views.sheet import (
    Flags,
)
from .views.view import (
    View,
    view,
)

__version__: str

__all__ = [
    "Advice",
    "CaseCheck",
    "CheckedMaps",
    "ClassMetrics",
    "ClassResult",
    "Classes",
    "CollapseTest",
    "Comparison",
    "Convergence",
    "ConvergenceResults",
    "DataSet",
    "Diagnosis",
    "EpochSpread",
    "Evaluation",
    "EvaluationPlan",
    "Flags",
    "FolderState",
    "Geometry",
    "GeometryError",
    "Gpus",
    "Header",
    "LabelFile",
    "MadeMaps",
    "MapParameters",
    "MapPlan",
    "MapRecord",
    "MapSet",
    "MethodConvergence",
    "Outcome",
    "PairedTest",
    "PredictPlan",
    "Predictions",
    "RegionWiseLoss",
    "Results",
    "Row",
    "Rules",
    "Run",
    "RwtoolError",
    "SeedResult",
    "Shard",
    "Share",
    "SignCount",
    "SignFigure",
    "Standing",
    "Storage",
    "TrainConfig",
    "TrainPlan",
    "TrainedRun",
    "UNet2d",
    "UsageError",
    "Validation",
    "View",
    "Volume",
    "VolumeError",
    "__version__",
    "ac_map",
    "active_contour_loss",
    "assd_mm",
    "authors_weight",
    "boundary_dou_loss",
    "boundary_map",
    "check_maps",
    "compare",
    "compare_rows",
    "constant_map",
    "contour_length",
    "convergence",
    "cross_entropy_loss",
    "diagonal_mm",
    "dice",
    "dice_loss",
    "directed_distances_mm",
    "doctor",
    "evaluate",
    "evaluate_labels",
    "expand_packed",
    "focal_loss",
    "generalized_surface_loss",
    "gradient_signs",
    "gradual_weight",
    "hausdorff_loss",
    "hd95_mm",
    "hd_map",
    "hd_mm",
    "keep_largest",
    "make_maps",
    "masd_mm",
    "matrix_loss",
    "matrix_map",
    "mix_losses",
    "nsd",
    "packed_region_wise_loss",
    "paired_permutation_test",
    "predict",
    "print_report",
    "read_cases_csv",
    "read_image",
    "read_labels",
    "read_map",
    "rectify",
    "region_wise_loss",
    "rrw_map",
    "skeleton_map",
    "train",
    "view",
    "weighted_cross_entropy_loss",
    "write",
    "write_report",
]
