"""Figures 5 and 6 of the paper on ACDC17: 50 seeds of region-wise and Boundary losses, and how many runs collapse.

    python tests/studies/convergence.py DATA OUT [--epochs 4] [--seeds 0:50] [--methods rrw,boundary]

Runs are those of `table2.py`, but of 480 steps, on pixels of 5.6 mm and in batches of 8, and validated on the first 20
patients of odd numbers, in the middle and at the end. OUT gets `runs/<method>/seed-N`, `convergence/` of
`rwtool convergence`, and study.json. Options that all studies have are those of `common.py`.
"""

from common import Method, Study, parse, parser

METHODS = {
    "rrw": Method("--loss rrw"),
    "boundary": Method("--loss boundary"),
    "boundary-dice-equal": Method("--loss boundary --with dice"),
    "boundary-dice-gradual": Method("--loss boundary --with dice --mix gradual"),
    "rrw-dice-gradual": Method("--loss rrw --with dice --mix gradual"),
}


def main():
    """Train what is missing, and count."""
    settings = parse(parser(__doc__, epochs=4, seeds="0:50", mm=5.6, batch_size=8), METHODS)
    study = Study(settings, subjects=20)
    for name, method in settings.methods.items():
        study.train(name, method, "--val-every 2")
    if settings.train_only:
        return
    study.convergence()
    if not settings.dry_run:
        study.write()


if __name__ == "__main__":
    main()
