"""Softmax temperature: does the rrw loss find thin classes sooner where the softmax that it sees is softer?

    python tests/studies/temperature.py DATA OUT [--temperatures 2,4] [--seeds 0:3]

rwtool has no option for it. Here the logits are divided by T on their way into the loss; which class is the largest,
and so every prediction, does not change. Runs are those of `table2.py` otherwise, and OUT may be the same: the runs are
`rrw-T2` and `rrw-T4`. One seed after another, in this process.
"""

import functools

import torch
from common import Method, Study, parse, parser

import rwtool
from rwtool.cli.options import parse_seeds
from rwtool.training import objective

METHODS = {"rrw": Method("--loss rrw")}
_LOSS = objective.packed_region_wise_loss


def softer(logits, *arguments, temperature, **keywords):
    """The rrw loss of logits / T."""
    return _LOSS(logits / temperature, *arguments, **keywords)


def main():
    """Train at each temperature; `table2.py` has the runs to compare with."""
    found = parser(__doc__, epochs=8)
    found.add_argument("--temperatures", default="2,4")
    settings = parse(found, METHODS)
    study, side = Study(settings), round(224 / settings.mm)
    torch.set_num_threads(1)  # as the other studies
    for temperature in map(float, settings.temperatures.split(",")):
        run = study.runs(f"rrw-T{temperature:g}")
        print(f"# logits / {temperature:g}: {run}", flush=True)
        if settings.dry_run:
            continue
        objective.packed_region_wise_loss = functools.partial(softer, temperature=temperature)
        rwtool.train(
            settings.data / "images", settings.data / "labels", run, loss="rrw", split=study.split(),
            target_spacing=(settings.mm, settings.mm), patch=(side, side), features=settings.features,
            batch_size=settings.batch_size, epochs=settings.epochs, lr=float(settings.lr), val_every=4,
            seeds=parse_seeds(None, None, settings.seeds), jobs=1, resume=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
