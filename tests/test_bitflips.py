"""Single bits that flip in what rwtool reads again: what is read is refused, or gives the numbers that it gave."""

import random

import pytest
from cohorts import places, train, write_cohort

import rwtool
from rwtool.datasets.classes import make_classes
from rwtool.datasets.curves import read_class_names, read_curve
from rwtool.datasets.runs import read_divergence
from rwtool.datasets.splits import read_case_names, read_split
from rwtool.errors import RwtoolError
from rwtool.evaluation.case import _read_cache
from rwtool.io.names import file_hash
from rwtool.maps.folder import JOURNAL, MapSet, read_map, read_map_set
from rwtool.network.checkpoint import load_checkpoint
from rwtool.network.config import read_config
from rwtool.report.csv import read_tables
from rwtool.training.map_source import plan_map_use
from rwtool.training.record import write_divergence

CLASSES = make_classes((0, 1, 2))
STORAGES = {
    "dense": {"kinds": ("hd",)},
    "npy": {"kinds": ("boundary",), "format": "npy"},
    "packed": {"kinds": ("rrw",), "layout": "packed", "dtype": "int16"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Maps, a run, an evaluation, and a journal that was not folded in; each file is as it was after a test."""
    folder = write_cohort(tmp_path_factory.mktemp("flips"), names=["a", "b", "c"])
    for name, options in STORAGES.items():
        rwtool.make_maps(folder / "labels", folder / name, jobs=1, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MapSet, "_fold", lambda maps: None)
        rwtool.make_maps(folder / "labels", folder / "journal", jobs=1)
    train(folder, folder / "run", val=0.34, val_every=1)
    (folder / "diverged").mkdir()
    write_divergence(folder / "diverged", 3, 14, "the loss became nan")
    rwtool.evaluate(
        folder / "labels", folder / "run", out=folder / "out", jobs=1, report=False, nsd_tolerance_mm={None: 1.5},
        metrics=("dice", "hd95", "nsd"),
    )  # fmt: skip
    return folder


def from_maps(folder):
    """What a training takes from the maps of a kind."""
    use = plan_map_use(next(folder.iterdir()).name, folder, CLASSES)
    labels = folder.parent / "labels" / "a.nii.gz"
    magnitudes = use.magnitudes("a", rwtool.read_labels(labels, classes=(0, 1, 2)), file_hash(labels))
    return use.kind, use.other_values, use.exponent, use.scales, use.sliced, magnitudes.tobytes()


def from_curve(run):
    curve = read_curve(run)
    arrays = (curve.loss, curve.dice, *curve.class_dice.values())
    return curve.settings | {"crc32": None}, curve.cases, [array.tobytes() for array in arrays], list(curve.class_dice)


def from_table(out):
    tables = read_tables([out / "cases.csv"])
    return repr((tables.rows, tables.rules))


def part(records):
    """Records of which some may be missing: they are made again."""
    return {name: repr(record) for name, record in records.items()}


TARGETS = {
    "dense/hd/a.nii.gz": lambda place: from_maps(place / "dense"),
    "dense/hd/maps.json": lambda place: from_maps(place / "dense"),
    "npy/boundary/a.npy": lambda place: from_maps(place / "npy"),
    "npy/boundary/maps.json": lambda place: from_maps(place / "npy"),
    "packed/rrw/a.nii.gz": lambda place: read_map(place / "packed" / "rrw" / "a.nii.gz").tobytes(),
    "packed/rrw/maps.json": lambda place: (
        from_maps(place / "packed"), read_map(place / "packed" / "rrw" / "a.nii.gz").tobytes(),
    ),
    f"journal/rrw/{JOURNAL}.*": lambda place: part(read_map_set(place / "journal" / "rrw").cases),
    "run/last.pt": lambda place: places(vars(load_checkpoint(place / "run" / "last.pt"))),
    "run/best.pt": lambda place: places(vars(load_checkpoint(place / "run" / "best.pt"))),
    "run/config.toml": lambda place: (read_config(place / "run" / "config.toml"), from_curve(place / "run")),
    "run/metrics.csv": lambda place: from_curve(place / "run"),
    "run/split.json": lambda place: (
        read_split(str(place / "run" / "split.json"), ["a", "b", "c"]),
        read_case_names(str(place / "run" / "split.json")), from_curve(place / "run"),
    ),
    "run/run.json": lambda place: read_class_names(place / "run"),
    "diverged/diverged.json": lambda place: read_divergence(place / "diverged"),
    "out/cases.csv": lambda place: from_table(place / "out"),
    "out/summary.json": lambda place: from_table(place / "out"),
    "out/cache/*.json": lambda place: part(_read_cache(next((place / "out" / "cache").iterdir()))),
}  # fmt: skip


def flip_bits(place, target, count, seed):
    """Flip bits one at a time; how often the file was refused."""
    path, use = next(place.glob(target)), TARGETS[target]
    whole, before, refused = path.read_bytes(), use(place), 0
    rng = random.Random(f"{target} {seed}")
    try:
        for _ in range(count):
            bit = rng.randrange(8 * len(whole))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                found = use(place)
            except RwtoolError:
                refused += 1
                continue
            if "journal" in target or "cache" in target:
                refused += len(found) < len(before)
                assert found.items() <= before.items(), (target, bit)
            else:
                assert found == before, (target, bit)
    finally:
        path.write_bytes(whole)
    return refused


@pytest.mark.parametrize("target", TARGETS)
def test_a_bit_that_flips_is_refused_or_changes_no_number(place, target):
    assert flip_bits(place, target, 6, 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_of_a_thousand_bits_that_flip_none_changes_a_number_unseen(place, target):
    refused = flip_bits(place, target, 1000, 1)
    print(f"{target}: {refused} of 1000 refused")
    assert refused > 500
