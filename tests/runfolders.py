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


def write_curve(folder, losses, dice, *, seed=0, epochs=None, split=SPLIT, diverged=None, hd=None, **settings):
    """What a training leaves of its epochs: `dice` has a list of an epoch each by label, None without a validation.

    `hd` likewise, in mm; HD95 is half of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "split.json").write_text(json.dumps({"format": 1, **split}))
    settings = {"format": 1, "loss": "rrw", "epochs": epochs or len(losses), "seed": seed, **settings}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    (folder / "config.toml").write_text("".join(lines))
    if diverged is not None:
        left = {"epoch": diverged, "step": 1, "message": "the loss became nan", "format": 1}
        (folder / "diverged.json").write_text(json.dumps(left))
    half = {label: [None if value is None else value / 2 for value in values] for label, values in (hd or {}).items()}
    measures = {"dice": dice} | ({} if hd is None else {"hd_mm": hd, "hd95_mm": half})
    columns = [name for key, by_label in measures.items() for name in (key, *(f"{key}_{label}" for label in by_label))]
    rows = [["epoch", "loss", "lr", *columns, "seconds", "slices_per_second"]]
    for index, value in enumerate(losses):
        cells = []
        for by_label in measures.values():
            found = [values[index] for values in by_label.values()]
            known = [one for one in found if one is not None]
            cells += [sum(known) / len(known) if known else None, *found]
        rows.append([index + 1, value, 0.001, *cells, 1.5, 20])
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    if losses:
        (folder / "metrics.csv").write_text(text + "\n")
    return folder
