"""Runs of several seeds, method by method: ``rwtool convergence``, its tables and its picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwtool import __version__
from rwtool.console import count, json_text, print_lines, print_table, printable
from rwtool.datasets.curves import TrainingCurve, find_runs, read_class_names, read_curve, refuse_mixtures
from rwtool.errors import UsageError, shorten
from rwtool.files import atomic, locked, make_folder
from rwtool.report.csv import open_text, write_csv
from rwtool.report.curves import along_epochs, draw_band
from rwtool.report.figures import COLOURS, can_draw, drawing, new_figure, save_figure
from rwtool.report.text import Table
from rwtool.statistics.convergence import Convergence, MethodConvergence, compare_convergence

TABLE, SEEDS, EPOCHS, SUMMARY = "convergence.csv", "seeds.csv", "epochs.csv", "convergence.json"
PICTURES = ("convergence.png", "convergence.pdf")

_TABLE_COLUMNS = (
    "method", "runs", "unfinished", "epochs", "collapsed", "collapsed_share", "collapsed_low", "collapsed_high", "mean",
    "sd", "median", "least", "most", "baseline", "difference", "difference_low", "difference_high", "p", "p_holm",
)  # fmt: skip
_SEED_COLUMNS = ("method", "run", "seed", "status", "dice", "share_at_most", "collapsed_in", "diverged_in_epoch")
_EPOCH_COLUMNS = ("method", "measure", "epoch", "n", "mean", "sd", "least", "most")
_FORMAT = 1
_CLASSES = 4  # that the picture shows one by one
_CURVES = {"dice": "Dice", "hd_mm": "HD (mm)", "hd95_mm": "HD95 (mm)"}


@dataclass(frozen=True)
class ConvergenceResults:
    """What became of the runs of each method.

    Attributes
    ----------
    comparison : Convergence
    """

    comparison: Convergence

    def summary(self) -> dict[str, Any]:
        """What ``convergence.json`` holds: all results, as plain values for JSON."""
        found: dict[str, Any] = _strict(dataclasses.asdict(self.comparison))
        return {"format": _FORMAT, "rwtool": __version__, "definitions": definitions(self.comparison), **found}

    def print(self) -> None:
        """Print the tables, the definitions in force and the runs that are not counted."""
        for table in tables(self.comparison):
            print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
        print_lines([*definitions(self.comparison), *notes(self.comparison)])

    def write(self, out: str | Path) -> None:
        """Write ``convergence.csv``, ``seeds.csv``, ``epochs.csv`` and ``convergence.json``.

        And ``convergence.png`` and ``convergence.pdf``, where matplotlib is installed.
        """
        folder, found = Path(out), self.comparison
        _refuse_strangers(folder)
        make_folder(folder)
        with locked(folder / "convergence", named=folder):
            labels = sorted(found.thresholds)
            write_csv(folder / TABLE, _TABLE_COLUMNS, _table_records(found))
            dice = tuple(f"dice_{label}" for label in labels)
            write_csv(folder / SEEDS, _SEED_COLUMNS + dice, _seed_records(found))
            spreads = ({"method": m.method, **vars(spread)} for m in found.methods for spread in m.curves)
            write_csv(folder / EPOCHS, _EPOCH_COLUMNS, spreads)
            with atomic(folder / SUMMARY) as temporary, open_text(temporary) as file:
                file.write(json_text(self.summary()) + "\n")
            for name in PICTURES if can_draw() else ():
                draw_convergence(found, folder / name)


def convergence(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    baseline: str | None = None,
    alpha: float = 0.05,
) -> ConvergenceResults:
    """Compare how surely losses converge, over runs that differ in their seed alone: ``rwtool convergence``.

    Parameters
    ----------
    runs : path or sequence of path
        Each ``NAME=DIR``, ``NAME=DIR1,DIR2`` or ``DIR``: a run folder of :func:`rwtool.train`, or one with a run for
        each seed.
    out : path, optional
        Folder for the tables and the picture of :meth:`ConvergenceResults.write`.
    baseline : str, optional
        Method that the shares of the others are compared with; by default the first.
    alpha : float
        1 - alpha is the level of the intervals.

    Returns
    -------
    ConvergenceResults
        Runs that have not come to their end are named and not counted.

    Raises
    ------
    UsageError
        A method has no finished run, runs of one method differ in more than their seed, or methods were trained or
        validated on other cases.
    RwtoolError
        A file of a run cannot be read.

    Examples
    --------
    ``rwtool.convergence(["rrw=runs/rrw", "boundary=runs/boundary"], out="convergence").print()``
    """
    several = [runs] if isinstance(runs, (str, Path)) else list(runs)
    if not several:
        raise UsageError("there are no runs to compare; name folders of runs of rwtool train")
    if out is not None:
        _refuse_strangers(Path(out))
    finished: dict[str, list[TrainingCurve]] = {}
    unfinished: dict[str, dict[str, str]] = {}
    for method, folders in find_runs([str(run) for run in several]).items():
        curves = {folder: read_curve(folder) for folder in folders}
        finished[method] = [curve for curve in curves.values() if curve is not None and curve.finished]
        unfinished[method] = {
            str(folder): "not begun" if curve is None else f"{len(curve.loss)} of {curve.planned} epochs"
            for folder, curve in curves.items()
            if curve is None or not curve.finished
        }
        if not finished[method]:
            raise UsageError(
                f"{method}: no run has come to its end ({shorten(list(unfinished[method]))}); finish them with "
                "rwtool train and resume=True"
            )
    refuse_mixtures(finished)
    found = compare_convergence(finished, unfinished=unfinished, baseline=baseline, alpha=alpha)
    names: dict[int, str] = {}
    for curve in (curve for curves in finished.values() for curve in curves):
        names = names or read_class_names(curve.folder)
    found = dataclasses.replace(found, class_names={label: names.get(label, str(label)) for label in found.thresholds})
    results = ConvergenceResults(found)
    if out is not None:
        results.write(out)
    return results


def tables(found: Convergence) -> Iterator[Table]:
    """The tables that are printed: the methods, where they collapse, and their comparison."""
    yield Table(
        "Dice over seeds, mean over classes and validation cases, after the last epoch",
        ("method", "runs", "mean ± SD", "median", "least", "most", "collapsed", f"{_level(found)} interval"),
        [
            (
                m.method, str(len(m.seeds)), _mean_sd(m), *(f"{value:.3f}" for value in (m.median, m.least, m.most)),
                f"{m.collapsed} of {len(m.seeds)}", f"{_percent(m.low)} to {_percent(m.high)}",
            )
            for m in found.methods
        ],
        1,
    )  # fmt: skip
    if any(m.collapsed for m in found.methods):
        yield Table(
            "Collapsed runs by class (below the Dice in the heading)",
            ("method", *(f"{_class(found, k)}\n< {least:.3f}" for k, least in found.thresholds.items()), "diverged"),
            [
                (
                    m.method,
                    *(str(sum(label in seed.collapsed_in for seed in m.seeds)) for label in found.thresholds),
                    str(sum(seed.diverged is not None for seed in m.seeds)),
                )
                for m in found.methods
            ],
            1,
        )
    if found.tests:
        yield Table(
            f"Share of collapsed runs, against {found.tests[0].baseline}",
            ("method", "difference", f"{_level(found)} interval", "p", "p (Holm)"),
            [
                (
                    test.method, _percent(test.difference), f"{_percent(test.low)} to {_percent(test.high)}",
                    f"{test.p:.3g}", f"{test.p_holm:.3g}",
                )
                for test in found.tests
            ],
            1,
        )  # fmt: skip


def definitions(found: Convergence) -> list[str]:
    """The rules behind the numbers."""
    lines = [
        "A run has collapsed when its Dice in some class is below half of the best median of a method in that class, "
        "or when its loss was not finite; its Dice is then 0 in all classes, in that epoch and those after it.",
        f"Shares have Wilson's interval ({_level(found)}), over seeds alone: other data and splits are not in it.",
    ]
    if found.tests:
        lines.append("Differences of shares have Newcombe's interval; p is Fisher's exact test, two-sided.")
    return lines


def notes(found: Convergence) -> list[str]:
    """What else a reader must know."""
    lines = []
    for m in found.methods:
        if m.unfinished:
            parts = [f"{folder} ({state})" for folder, state in m.unfinished.items()]
            lines.append(f"not counted: {count(len(parts), 'unfinished run')} of {m.method}: {shorten(parts)}")
    if len({m.epochs for m in found.methods}) > 1:
        each = ", ".join(f"{m.method} {m.epochs}" for m in found.methods)
        lines.append(f"note: the methods were trained for different numbers of epochs: {each}")
    lost = [_class(found, label) for label, least in found.thresholds.items() if least == 0]
    if lost:
        lines.append(
            f"note: no method finds {shorten(lost)} in half of its runs, so nothing counts as collapsed there; train "
            "for longer"
        )
    return lines


def draw_convergence(found: Convergence, path: Path) -> None:
    """Draw the distribution of Dice over runs, and its mean by epoch with the band of one SD; HD and HD95 likewise.

    Beside the mean over classes stand the classes one by one, up to four. Distances are drawn where runs have measured
    them in each validation.

    Parameters
    ----------
    found : Convergence
    path : Path
        Of a .png, .pdf or .svg file.

    Raises
    ------
    UsageError
        matplotlib is not installed, or the suffix is of no format that is written.
    VolumeError
        The file cannot be written.
    """
    labels = list(found.thresholds) if 1 < len(found.thresholds) <= _CLASSES else []
    columns: list[int | None] = [None, *labels]
    known = {spread.measure for m in found.methods for spread in m.curves}
    curves = {name: said for name, said in _CURVES.items() if name == "dice" or name in known}
    with drawing():
        figure = new_figure(0.6 + 2.8 * max(len(columns), 1.6), 2.7 * (1 + len(curves)))
        above, *below = figure.subplots(1 + len(curves), len(columns), squeeze=False)
        for column, (label, top) in enumerate(zip(columns, above, strict=True)):
            top.set_title(printable("mean over classes" if label is None else _title(found, label)), loc="left")
            for index, m in enumerate(found.methods):
                colour = COLOURS[index % len(COLOURS)]
                values = sorted(
                    value
                    for seed in m.seeds
                    if not math.isnan(value := seed.dice if label is None else seed.class_dice[label])
                )
                shares = [k / len(values) for k in range(len(values) + 1)]
                name = printable(f"{m.method}: {m.collapsed} of {len(m.seeds)} collapsed")
                top.step([0, *values, 1], [*shares, 1], where="post", color=colour, label=name)
                for name, row in zip(curves, below, strict=True):
                    measure = name if label is None else f"{name}_{label}"
                    spreads = [spread for spread in m.curves if spread.measure == measure]
                    draw_band(row[column], spreads, colour, (0, 1 if name == "dice" else math.inf))
            if label is not None:
                top.axvline(found.thresholds[label], color=COLOURS[-1], lw=0.8, ls=":")
            top.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Dice d")
            for name, row in zip(curves, below, strict=True):
                row[column].set(ylim=(0, 1 if name == "dice" else None))
                along_epochs(row[column])
        above[0].set_ylabel("share of runs with Dice ≤ d")
        for said, row in zip(curves.values(), below, strict=True):
            row[0].set_ylabel(f"{said}: mean ± SD over runs")
        figure.legend(*above[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        save_figure(figure, path)


def _refuse_strangers(out: Path) -> None:
    """Refuse a folder with files of these names that this command has not written."""
    there = [name for name in (TABLE, SEEDS, EPOCHS, SUMMARY, *PICTURES) if (out / name).exists()]
    head = (",".join(_TABLE_COLUMNS) + "\n").encode()
    if there:
        try:
            with (out / TABLE).open("rb") as file:
                ours = file.read(len(head)) == head
        except OSError:
            ours = False
        if not ours:
            raise UsageError(
                f"{out} holds {', '.join(there)}, and its {TABLE} is not that of rwtool convergence; move them away, "
                "or name another out="
            )


def _table_records(found: Convergence) -> Iterator[dict[str, Any]]:
    tests = {test.method: test for test in found.tests}
    for m in found.methods:
        record: dict[str, Any] = {**vars(m), "runs": len(m.seeds), "unfinished": len(m.unfinished)}
        record |= {"collapsed_share": m.share, "collapsed_low": m.low, "collapsed_high": m.high}
        if (test := tests.get(m.method)) is not None:
            record |= vars(test) | {"difference_low": test.low, "difference_high": test.high}
        yield {name: record.get(name) for name in _TABLE_COLUMNS}


def _seed_records(found: Convergence) -> Iterator[dict[str, Any]]:
    for m in found.methods:
        for seed in m.seeds:
            status = "diverged" if seed.diverged is not None else "collapsed" if seed.collapsed else "ok"
            record = {**vars(seed), "method": m.method, "status": status, "diverged_in_epoch": seed.diverged}
            record["collapsed_in"] = " ".join(map(str, seed.collapsed_in))
            yield record | {f"dice_{label}": seed.class_dice[label] for label in found.thresholds}
        for folder in m.unfinished:
            nothing = dict.fromkeys((*_SEED_COLUMNS, *(f"dice_{label}" for label in found.thresholds)))
            yield {**nothing, "method": m.method, "run": folder, "status": "unfinished"}


def _class(found: Convergence, label: int) -> str:
    name = found.class_names.get(label, str(label))
    return name if name == str(label) else f"{label} {name}"


def _title(found: Convergence, label: int) -> str:
    name = _class(found, label)
    return f"class {label}" if name == str(label) else name


def _level(found: Convergence) -> str:
    return f"{100 * (1 - found.alpha):g} %"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _mean_sd(m: MethodConvergence) -> str:
    return f"{m.mean:.3f}" + ("" if math.isnan(m.sd) else f" ± {m.sd:.3f}")


def _strict(value: Any) -> Any:
    """What strict JSON holds, with None for what is undefined."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
