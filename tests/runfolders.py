"""Run folders of `rwtool train` as evaluation sees them. Files are empty: pairing goes by their names."""

import json

SPLIT = {"train": ["a", "b"], "val": ["c", "d"]}


def touch(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.nii.gz").touch()


def make_run(folder, split=SPLIT, predictions="cd"):
    """A run folder; without predictions an unfinished one, without a split one of another program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "last.pt").touch()
    if split is not None:
        (folder / "split.json").write_text(json.dumps(split))
    if predictions is not None:
        touch(folder / "predictions", predictions)


def make_project(folder):
    """Six references; runs/dice is one run and runs/rrw has three seeds, all validated on c and d."""
    touch(folder / "labels", "abcdef")
    make_run(folder / "runs" / "dice")
    for seed in (0, 2, 10):
        make_run(folder / "runs" / "rrw" / f"seed-{seed}")
    return folder
