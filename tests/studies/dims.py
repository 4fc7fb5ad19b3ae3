"""2D or 3D, mm or voxels, across or inner: maps of several settings on ACDC17, three seeds each.

    python tests/studies/dims.py DATA OUT [--epochs 12] [--seeds 0:3] [--methods rrw,rrw-2d]

The paper speaks of 3D maps; its code makes them of 2D patches, in voxels. Runs are those of `table2.py` but for their
maps, and OUT may be the same: what is trained there already is taken. OUT gets `runs/<method>/seed-N`, `results-dims/`
(means.csv, tests.csv against 3D rrw maps in mm) and study.json.
"""

from common import Method, Study, parse, parser

# fmt: off
METHODS = {
    "rrw": Method("--loss rrw"),
    "rrw-2d": Method("--loss rrw", "--dims 2"),
    "rrw-voxel": Method("--loss rrw", "--units voxel"),
    "rrw-2d-voxel": Method("--loss rrw", "--dims 2 --units voxel"),
    "rrw-inner": Method("--loss rrw", "--convention inner"),
    "boundary-dice": Method("--loss boundary --with dice --mix gradual"),
    "boundary-dice-2d": Method("--loss boundary --with dice --mix gradual", "--kind boundary --dims 2"),
    "boundary-dice-voxel": Method("--loss boundary --with dice --mix gradual", "--kind boundary --units voxel"),
}
# fmt: on


def main():
    """Train what is missing, and compare."""
    settings = parse(parser(__doc__, epochs=12), METHODS)
    study = Study(settings)
    for name, method in settings.methods.items():
        study.train(name, method, "--val-every 6")
    if settings.train_only:
        return
    study.evaluate({name: study.finished(name)[0] for name in settings.methods}, settings.out / "results-dims")
    if not settings.dry_run:
        study.write()


if __name__ == "__main__":
    main()
