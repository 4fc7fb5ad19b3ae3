"""2D or 3D, mm or voxels, across or inner: maps of several settings on ACDC17, three seeds each.

    python tests/studies/dims.py DATA OUT [--epochs 8] [--seeds 0:3] [--methods rrw-dice-gradual,rrw-2d]

The paper speaks of 3D maps; its code makes them of 2D patches, in voxels. Runs are those of `table2.py` but for their
maps, and OUT may be the same: what is trained there already is taken. OUT gets `runs/<method>/seed-N`, dims.csv with a
row a method and class, and what it is of, `results-dims/`, with tests against 3D rrw maps in mm.
All are mixed with Dice, gradually: by itself rrw loses the right ventricle in runs as short as these.
"""

from common import Method, Study, parse, parser, write_rows
from table2 import table

# fmt: off
RRW = "--loss rrw --with dice --mix gradual"
BOUNDARY = "--loss boundary --with dice --mix gradual"
METHODS = {
    "rrw-dice-gradual": Method(RRW),
    "rrw-2d": Method(RRW, "--dims 2"),
    "rrw-inner": Method(RRW, "--convention inner"),
    "rrw-voxel": Method(RRW, "--units voxel"),
    "rrw-2d-voxel": Method(RRW, "--dims 2 --units voxel"),
    "boundary-dice": Method(BOUNDARY),
    "boundary-2d": Method(BOUNDARY, "--kind boundary --dims 2"),
    "boundary-voxel": Method(BOUNDARY, "--kind boundary --units voxel"),
}
# fmt: on


def main():
    """Train what is missing, and compare."""
    settings = parse(parser(__doc__, epochs=8), METHODS)
    study = Study(settings)
    for name, method in settings.methods.items():
        study.train(name, method, "--val-every 4")
    if settings.train_only:
        return
    out = settings.out / "results-dims"
    study.evaluate(
        {name: study.finished(name)[0] for name in settings.methods}, out, "--group", settings.data / "phases.csv"
    )
    if not settings.dry_run:
        write_rows(settings.out / "dims.csv", table(out))
        study.write()


if __name__ == "__main__":
    main()
