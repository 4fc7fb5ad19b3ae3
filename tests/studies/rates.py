"""Learning rate and schedule: final Dice of short runs of four losses, by default on ACDC17, one seed each.

    python tests/studies/rates.py DATA OUT [--epochs 8] [--rates 5e-4,1e-3,2e-3,4e-3,8e-3] [--schedules poly]
    python tests/studies/rates.py DATA OUT --grid "--slice-axis 0 --flip none" --epochs 4       (the hippocampus)

OUT/rates.csv has a line a run: loss, rate, schedule, mean Dice and Dice by class, loss of the last epoch. Options that
all studies have are those of `common.py`.
"""

from common import Method, Study, parse, parser, rows_of, write_rows

METHODS = {
    "dice": Method("--loss dice"),
    "rrw": Method("--loss rrw"),
    "boundary-dice": Method("--loss boundary --with dice --mix gradual"),
    "rrw-dice-gradual": Method("--loss rrw --with dice --mix gradual"),
}


def last_row(run):
    """What `metrics.csv` says of the last epoch; nothing where the loss was not finite before."""
    last = rows_of(run / "metrics.csv")[-1]
    return {name: value for name, value in last.items() if name == "loss" or name.startswith("dice")}


def main():
    """Train each loss at each rate by each schedule, and write the table."""
    found = parser(__doc__, epochs=8, seeds="0")
    found.add_argument("--rates", default="5e-4,1e-3,2e-3,4e-3,8e-3")
    found.add_argument("--schedules", default="poly")
    settings = parse(found, METHODS)
    study, lines = Study(settings), []
    for loss, method in settings.methods.items():
        for schedule in settings.schedules.split(","):
            for rate in settings.rates.split(","):
                name = f"{loss}-{schedule}-{rate}"
                settings.lr = rate
                study.train(name, method, f"--lr-schedule {schedule} --val-every 1000")
                runs = [] if settings.dry_run else study.finished(name)[0]
                lines += [{"loss_name": loss, "lr": rate, "schedule": schedule, **last_row(run)} for run in runs]
    if lines:
        write_rows(settings.out / "rates.csv", lines)
        study.write()


if __name__ == "__main__":
    main()
