"""Table 2 of the paper on ACDC17, with more maps and losses: Dice, HD and HD95 in mm, three seeds each.

    python tests/studies/table2.py DATA OUT [--epochs 8] [--mm 4] [--features 8] [--batch-size 16] [--seeds 0:3]
        [--methods dice,rrw] [--more "--lr 1e-3"] [--jobs 2] [--dry-run]

DATA holds `images`, `labels` and `phases.csv` (case,group: ED or ES) of the 200 volumes of ACDC's training set. The
split is that of the paper's code: the 50 patients of even numbers are trained on, those of odd numbers evaluated; both
frames of a patient are on one side, and count as one subject in the tests. Slices are resampled to 4 mm and cut to
56 x 56 pixels, so that one core trains a run in two minutes. The paper trains larger networks on finer slices, a
thousand times as long, so these are not its numbers with other digits.

Every step is a command of rwtool, printed before it runs, and can be stopped: the same line goes on. OUT gets

    runs/<method>/seed-N   the runs
    table2.csv             a row a method and class
    results/               what it is of: means.csv, tests.csv, cases.csv, report.html: against the first loss, by phase
    table2-largest.csv     the same of some methods, of the predictions of `rwtool predict --keep-largest`, and
    results-largest/       what it is of
    convergence/           which runs collapsed: convergence.csv, seeds.csv
    study.json             the commands, machine, versions and time, and runs that have no predictions

A run whose loss was not finite has no predictions: it is left out of results/, and stands in convergence/ and
study.json.
"""

from common import Method, Study, parse, parser, rows_of, write_rows

# fmt: off
PAPER = {
    "dice": Method("--loss dice"),
    "ce": Method("--loss ce"),
    "focal": Method("--loss focal"),
    "wce-rrw": Method("--loss wce-rrw"),
    "boundary-dice": Method("--loss boundary --with dice --mix gradual"),
    "ac": Method("--loss ac"),
    "hd": Method("--loss hd"),
    "rrw": Method("--loss rrw"),
}
MORE = {
    "boundary": Method("--loss boundary"),
    "rrw-dice": Method("--loss rrw --with dice"),
    "rrw-dice-gradual": Method("--loss rrw --with dice --mix gradual"),
    "rrw-ce": Method("--loss rrw --with ce"),
    "rrw-reversed": Method("--loss rrw", "--profile reversed"),
    "rrw-exp": Method("--loss rrw", "--profile exp"),
    "rrw-reversed-dice": Method("--loss rrw --with dice --mix gradual", "--profile reversed"),
    "rrw-exp-dice": Method("--loss rrw --with dice --mix gradual", "--profile exp"),
    "rrw-instances": Method("--loss rrw", "--instances"),
    "rrw-weights": Method("--loss rrw", "--class-weight 1=16 --class-weight 2=16 --class-weight 3=16"),
    "skeleton-dice": Method("--loss skeleton --with dice"),
    "matrix": Method("--loss matrix", "--kind matrix --matrix {matrix}"),
    "generalized-surface": Method("--loss generalized-surface"),
    "boundary-dou": Method("--loss boundary-dou"),
}
# fmt: on
METHODS = PAPER | MORE
MATRIX = "0, 1, 1, 1\n1, 0, 0.5, 0.5\n1, 0.5, 0, 0.5\n1, 0.5, 0.5, 0\n"  # foreground for foreground: half as bad


def with_files(method, out):
    """A method whose options name the files that they need."""
    if method.maps is None or "{matrix}" not in method.maps:
        return method
    return Method(method.train, method.maps.format(matrix=out / "matrix.csv"))


def keep_largest(study, name):
    """Predict the evaluated cases again, of each class the largest piece alone."""
    folders = []
    for run in study.finished(name)[0]:
        folders.append(study.out / "largest" / name / run.name)
        if not folders[-1].is_dir():
            odd = study.data / "images" / "patient??[13579]_frame*.nii.gz"
            study.rwtool("predict", run, odd, folders[-1], "--keep-largest", "--quiet")
    return folders


def table(results):
    """One row a method and class, from `means.csv` and `tests.csv`: means over both phases, which have as many cases.

    `better` and `worse` say in which metrics the method differs from the first one in both phases, p < 0.05 by max-T.
    """
    means, signs = {}, {}
    for row in rows_of(results / "means.csv"):
        if row["undefined"] == "diagonal":
            means.setdefault((row["method"], row["class_name"]), {}).setdefault(row["metric"], []).append(row["mean"])
    for row in rows_of(results / "tests.csv"):
        if row["undefined"] == "diagonal":
            difference = float(row["mean_difference"]) if float(row["p_maxt"]) < 0.05 else 0.0
            improves = difference > 0 if row["metric"] == "dice" else difference < 0
            word = "" if difference == 0 else "better" if improves else "worse"
            signs.setdefault((row["method"], row["class_name"], row["metric"]), set()).add(word)
    rows = []
    for (method, name), found in means.items():
        row = {"method": method, "class": name}
        for metric in ("dice", "hd95", "hd"):
            row[metric] = round(sum(map(float, found[metric])) / len(found[metric]), 3 if metric == "dice" else 1)
        for word in ("better", "worse"):
            row[word] = " ".join(metric for metric in found if signs.get((method, name, metric)) == {word})
        rows.append(row)
    return rows


def main():
    """Train what is missing, and compare."""
    found = parser(__doc__, epochs=8)
    found.add_argument(
        "--largest", default="dice,ce,boundary-dice,rrw,rrw-dice-gradual", help="methods for results-largest"
    )
    settings = parse(found, METHODS)
    study = Study(settings)
    if not settings.dry_run:
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "matrix.csv").write_text(MATRIX, encoding="utf-8")
    for name, method in settings.methods.items():
        study.train(name, with_files(method, settings.out), "--val-every 4")
    if settings.train_only:
        return
    largest = [name for name in settings.largest.split(",") if name in settings.methods]
    folders = {
        "results": {name: study.finished(name)[0] for name in settings.methods},
        "results-largest": {name: keep_largest(study, name) for name in largest},
    }
    for name, sources in folders.items():
        out = settings.out / name
        study.evaluate(sources, out, "--group", settings.data / "phases.csv")
        if not settings.dry_run:
            write_rows(settings.out / f"{name.replace('results', 'table2')}.csv", table(out))
    study.convergence()
    if not settings.dry_run:
        study.write()


if __name__ == "__main__":
    main()
