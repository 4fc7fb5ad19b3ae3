"""Files of a study: how sound ones are made and edited, and the commands that read them."""

import contextlib
import io
import json
import math
import re
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from findings import Files, FindingError, run
from mutations import TEXTS, WHOLE, Edit, edit_bytes, edit_gzip, edit_json, edit_lines, edit_table, edit_zip

import rwtool
from rwtool.errors import RwtoolError
from rwtool.maps.folder import read_map_set

# Files of a study


class Folder:
    """Files of which one is edited, used by a function of the folder that they lie in."""

    def __init__(self, make, edits, use):
        self._make, self._edits, self._use = make, edits, use

    def make(self, rng):
        return self._make(rng)

    def edit(self, rng, files):
        names = [name for name in files.content for part in self._edits if re.search(part, name)]
        name = rng.choice(names)
        how = next(edit for part, edit in self._edits.items() if re.search(part, name))
        files.edit(name, how(rng, files.content[name]))

    def use(self, files, folder, rng):
        self._use(files, folder, rng)


def _nifti_bytes(labels, spacing=(0.5, 0.9, 3.0)):
    return nib.Nifti1Image(labels, np.diag([*spacing, 1])).to_bytes()


def _some_labels(seed, shape=(6, 5, 4), classes=3):
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


_MADE = {}  # what is the same for many cases


def _made(key, make):
    """Files that take a while to make, by name; `make` writes them into a folder."""
    if key not in _MADE:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
            _MADE[key] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return dict(_MADE[key])


def _edit_packed(rng, data):
    return edit_gzip(rng, data) if rng.random() < 0.4 else edit_bytes(rng, data)


_MAP_SETS = (
    {"kinds": ("rrw",), "layout": "packed", "format": "npy"},
    {"kinds": ("boundary",), "format": "nii.gz"},
    {"kinds": ("constant",), "dtype": "int16", "format": "nii.gz", "class_weights": {1: 2.0}},
)


def _make_maps(rng):
    settings = rng.choice(_MAP_SETS)

    def make(folder):
        (folder / "labels").mkdir()
        for case in "ab":
            (folder / "labels" / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case))))
        rwtool.make_maps(folder / "labels", folder / "maps", jobs=1, **settings)

    content = _made(str(settings), make)
    sound = dict(content)
    if rng.random() < 0.3:  # as a run that was killed leaves it
        (sidecar,) = (name for name in content if name.endswith("maps.json"))
        told = json.loads(content[sidecar])
        form, stamp = told["format"], _made(f"stamp {settings}", lambda folder: _write_stamp(folder, content, sidecar))
        lines = [
            {"format": form, "settings": stamp["stamp"].decode(), "case": case, "record": record}
            for case, record in told["cases"].items()
        ]
        content[f"{sidecar}.journal"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        content[sidecar] = json.dumps({**told, "cases": {}}).encode()
    return Files(content, (settings, sound))


def _write_stamp(folder, content, sidecar):
    """What binds the lines of a journal to the settings of its folder."""
    (folder / "maps.json").write_bytes(content[sidecar])
    stamp = read_map_set(folder).settings.describe()
    (folder / "maps.json").unlink()
    (folder / "stamp").write_text(stamp)


def _edit_journal(rng, data):
    lines = data.splitlines()
    if rng.random() < 0.5:
        return edit_bytes(rng, data)
    index = rng.randrange(len(lines))
    edit = edit_json(rng, lines[index])
    lines[index] = edit.data
    return edit._replace(data=b"\n".join(lines) + b"\n", same=False)


def _use_maps(files, folder, rng):
    settings, sound = files.truth
    (kind,) = settings["kinds"]
    inside = folder / "in"
    names = [name for name in sound if name.endswith((".npy", ".nii.gz"))]
    changed = [name for name in names if files.content[name] != sound[name]]
    code, said = run("check", inside / "maps" / kind, "-j", 1, "--format", "json")
    checked = json.loads(said[: said.rindex("}") + 1])["cases"] if code != 2 and said.startswith("{") else {}
    for name in changed:
        case = checked.get(Path(name).name.partition(".")[0])  # which a damaged journal does not name
        if case is not None and case["verified"]:
            raise FindingError(f"{name} verified: {said}")
    if files.same and files.edits and not changed and code != 0:
        raise FindingError(f"what means the same does not verify: {said}")
    with contextlib.suppress(RwtoolError):
        rwtool.read_map(inside / rng.choice(names))
    options = [f"--{name}={value}" for name, value in settings.items() if name not in ("kinds", "class_weights")]
    options += ["--class-weight=1=2"] if "class_weights" in settings else []
    code, said = run("maps", inside / "labels", inside / "maps", "--kind", kind, "-j", 1, *options)
    if code == 0:
        code, said = run("check", inside / "maps" / kind, "-j", 1)
        if code != 0:
            raise FindingError(f"maps that were made again do not verify: {said}")
    if code:
        raise RwtoolError(said)


def _make_dataset(rng):
    content = {f"in/{case}.nii": _nifti_bytes(_some_labels(ord(case))) for case in "ab"}
    labels = rng.choice((
        b'{"background": 0, "one": 1, "two": 2}', b'{"0": "background", "1": "one", "2": "two"}',
        b'{"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}',
    ))  # fmt: skip
    content["in/dataset.json"] = b'{"channel_names": {"0": "CT"}, "labels": ' + labels + b', "file_ending": ".nii"}'
    return Files(content)


def _use_dataset(files, folder, rng):
    code, said = run("evaluate", folder / "in/in", folder / "in/in", "-q", "-j", 1)
    if not code:
        code, said = run("maps", folder / "in/in", folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)


_SPLIT = b'[{"train": ["a", "b"], "val": ["c.nii.gz"]}, {"train": ["b", "c"], "val": ["a"]}]'


def _make_split(rng):
    kind = rng.choice(("folds", "one", "names", "text"))
    content = {
        "folds": _SPLIT, "one": b'{"format": 1, "train": ["a"], "val": ["b", "c"]}', "names": b'["a", "b"]',
        "text": b"a\nb\nc.nii.gz\n",
    }[kind]  # fmt: skip
    return Files({"cases.txt" if kind == "text" else "split.json": content}, kind)


def _use_split(files, folder, rng):
    from rwtool.datasets.splits import read_case_names, read_split

    (name,) = files.content
    ending = rng.choice(("", "", ":0", ":1", ":7")) if files.truth == "folds" else ""
    source = f"{folder / 'in' / name}{ending}"
    if files.truth in ("folds", "one") and rng.random() < 0.5:
        split = read_split(source, ["a", "b", "c"])
        if not set(split.train) | set(split.val) <= {"a", "b", "c"} or set(split.train) & set(split.val):
            raise FindingError(f"{split}")
    elif not all(isinstance(case, str) and case.strip() for case in read_case_names(source)):
        raise FindingError(f"{read_case_names(source)}")


def _make_config(rng):
    settings = {
        "loss": "boundary",
        "mixed_with": "dice",
        "mix": "gradual",
        "patch": (8, 12),
        "target_spacing": (0.5, 2),
    }
    config = rwtool.TrainConfig(**settings)
    return Files({"config.toml": config.to_toml().encode()}, config)


def _use_config(files, folder, rng):
    from rwtool.network.config import read_config

    run("train", folder / "none", folder / "none", folder / "out", "--config", folder / "in" / "config.toml")
    config = rwtool.TrainConfig(**read_config(folder / "in" / "config.toml"))
    if files.same and config != files.truth:
        raise FindingError(f"{config}")


def _make_tables(rng):
    def make(folder):
        for case in "abcd":
            for seed, part in enumerate(("reference", "unet", "other")):
                (folder / part).mkdir(exist_ok=True)
                (folder / part / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case) + 10 * seed)))
        words = (folder / "reference", f"unet={folder / 'unet'}", f"other={folder / 'other'}")
        run("evaluate", *words, "-o", folder / "out", "--metrics", "dice,hd95,volume_ml", "--no-report", "-q", "-j", 1)
        for path in [*folder.iterdir()]:
            if path.name != "out":
                shutil.rmtree(path)

    content = _made("tables", make)
    kept = {Path(name).name: data for name, data in content.items() if name in ("out/cases.csv", "out/summary.json")}
    if rng.random() < 0.25:
        foreign = b"case,algorithm,value,task\na,x,0.5,t1\nb,x,0.25,t1\na,y,1,t1\nb,y,0,t2\n"
        kept = {"cases.csv": foreign}
    return Files(kept)


def _use_tables(files, folder, rng):
    words = rng.choice(((), ("--all-pairs",), ("--rank",), ("--undefined", "exclude"), ("--subject", "(.)")))
    words = ("--permutations", 50, "--no-report", *words)
    code, said = run("compare", folder / "in" / "cases.csv", *words, "-o", folder / "out")
    if code:
        raise RwtoolError(said)
    again, said = run("compare", folder / "out" / "cases.csv", *words)
    if again:
        raise FindingError(f"the table that it wrote is refused: {said}")


def _edit_summary(rng, data):
    """Edit the rules of a summary, which alone are read, as often as the rest."""
    if rng.random() < 0.5:
        return edit_json(rng, data)
    start = data.index(b'"rules": {') + 9
    end = data.index(b"}", start) + 1
    edit = edit_json(rng, data[start:end])
    return edit._replace(data=data[:start] + edit.data + data[end:], same=False)


def _make_groups(rng):
    content = {f"labels/{case}.nii": _nifti_bytes(_some_labels(ord(case))) for case in "abc"}
    content["groups.csv"] = b"case,group\na,left\nb.nii.gz,left\nc,right\n"
    return Files(content)


def _use_groups(files, folder, rng):
    labels = folder / "in" / "labels"
    code, said = run("evaluate", labels, labels, "--group", folder / "in" / "groups.csv", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_names(rng):
    name = "sub-01_desc-x_dseg"
    return Files(
        {f"{name}.nii": _nifti_bytes(_some_labels(0)), f"{name}.tsv": b"index\tname\n1\tone\n2\ttwo\n0\tnone\n"}
    )


def _use_names(files, folder, rng):
    code, said = run("maps", folder / "in", folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_curves(rng):
    from runfolders import write_curve

    def make(folder):
        for seed in (0, 1):
            run = folder / "rrw" / f"seed-{seed}"
            write_curve(run, [0.5, 0.25, 0.125], {1: [None, 0.5, 0.75], 2: [None, 0.25, 0.5]}, seed=seed)
            (run / "run.json").write_text('{"classes": [{"value": 1, "name": "one"}, {"value": 2, "name": "two"}]}')
        write_curve(folder / "rrw" / "seed-2", [0.5], {1: [None], 2: [None]}, seed=2, epochs=3, diverged=2)

    return Files(_made("curves", make))


def _use_curves(files, folder, rng):
    code, said = run(
        "convergence", folder / "in" / "rrw", *rng.choice((*[(), ("--format", "json")] * 10, ("-o", folder / "out")))
    )
    if code:
        raise RwtoolError(said)


def _edit_toml(rng, data):
    return edit_lines(rng, data, (" = ",))


def _make_cache(rng):
    def make(folder):
        for case in "ab":
            for part in ("labels", "unet"):
                (folder / part).mkdir(exist_ok=True)
                (folder / part / f"{case}.nii").write_bytes(_nifti_bytes(_some_labels(ord(case) + len(part))))
        words = ("-o", folder / "out", "--no-report", "-q", "-j", 1)
        run("evaluate", folder / "labels", folder / "unet", *words)

    content = _made("cache", make)
    return Files(content, content["out/cases.csv"])


def _use_cache(files, folder, rng):
    inside = folder / "in"
    code, said = run("evaluate", inside / "labels", inside / "unet", "-o", inside / "out", "--no-report", "-q", "-j", 1)
    if code:
        raise RwtoolError(said)
    if (inside / "out" / "cases.csv").read_bytes() != files.truth:
        raise FindingError("an edited cache gives other numbers")


def _make_nnunet(rng):
    from nnunetfolders import make_model

    def make(folder):
        def put(path):
            if path.suffix == ".nii":
                path.write_bytes(_nifti_bytes(_some_labels(ord(path.stem[0]), classes=2)))

        make_model(folder / "Dataset001_Heart", ending=".nii")
        (folder / "labels").mkdir()
        for case in "abcd":
            (folder / "labels" / f"{case}.nii").touch()
        for path in folder.rglob("*"):
            put(path)

    return Files(_made("nnunet", make))


def _use_nnunet(files, folder, rng):
    model = next((folder / "in" / "Dataset001_Heart").iterdir())
    words = rng.choice(((folder / "in" / "labels", model), (model,)))
    code, said = run("evaluate", *words, "-q", "-j", 1)
    if code:
        raise RwtoolError(said)


def _make_plans(rng):
    flat = rng.random() < 0.5

    def make(folder):
        import blosc2

        name = "2d" if flat else "3d_fullres"
        (folder / f"nnUNetPlans_{name}").mkdir()
        (folder / "gt_segmentations").mkdir()
        labels = _some_labels(0)
        path = folder / f"nnUNetPlans_{name}" / "a_seg.b2nd"
        blosc2.asarray(np.ascontiguousarray(labels.T[None]), urlpath=str(path), mode="w")
        (folder / "gt_segmentations" / "a.nii").write_bytes(_nifti_bytes(labels))
        parent = {"data_identifier": f"nnUNetPlans_{name}", "spacing": [0.9, 0.5] if flat else [3.0, 0.9, 0.5]}
        plans = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2]}
        plans["configurations"] = {name: parent, f"{name}_large": {"inherits_from": name, "batch_size": 2}}
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))

    return Files(_made(f"plans {flat}", make))


def _use_plans(files, folder, rng):
    (labels,) = (folder / "in").glob("nnUNetPlans_*")
    code, said = run("maps", labels, folder / "out", "-j", 1)
    if code:
        raise RwtoolError(said)
    (sidecar,) = (folder / "out").rglob("maps.json")
    spacing = json.loads(sidecar.read_text())["cases"]["a"]["spacing_mm"]
    if files.same and spacing != [3.0, 0.9, 0.5]:
        raise FindingError(f"it reads a spacing of {spacing}")


# Checkpoints


def _checkpoint():
    import torch

    from rwtool.datasets.classes import Classes
    from rwtool.network.checkpoint import Checkpoint, Task, build_network
    from rwtool.network.normalization import Normalization

    config = rwtool.TrainConfig(features=2, depth=2, patch=(8, 12), batch_size=4, amp="off")
    task = Task(Classes((0, 1, 4), ("background", "one", "four"), None, "labels"), 1, False, Normalization("zscore"))
    torch.manual_seed(0)
    network = build_network(config, task)
    split = {"train": ["a"], "val": ["b"]}
    inputs = {"slice axis": 2, "orientation": None, "classes": [0, 1, 4]}
    return Checkpoint(config, task, network.state_dict(), 1, [{"epoch": 1, "loss": 0.5}], split=split, inputs=inputs)


def _make_checkpoint(rng):
    content = _made("checkpoint", lambda folder: _checkpoint().save(folder / "last.pt"))
    content["image/a.nii"] = _nifti_bytes(_some_labels(3, (12, 8, 2)).astype(np.int16))
    return Files(content)


def _edit_checkpoint(rng, data):
    """Edit the archive; or a value in it, under a right checksum."""
    import torch

    from rwtool.network.checkpoint import _checksum

    if rng.random() < 0.5:
        return edit_zip(rng, data)
    content = torch.load(io.BytesIO(data), weights_only=True)
    holder, path = content, []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if path and path[0] == "model":
            keys = [key for key in keys if isinstance(key, str)]
        key = rng.choice(keys)
        path.append(key)
        inner = holder[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.2:
            break
        holder = inner
    value = holder[key]
    odd = [
        *WHOLE[:24],
        *(x for x in (0.5, -1.0, math.nan, math.inf, 1e300)),
        *TEXTS[:40],
        None,
        True,
        [],
        {},
        [value],
        {"a": value},
    ]
    if isinstance(value, torch.Tensor):
        odd += [
            value.double(),
            value[:1] if value.ndim else value,
            value.to_sparse(),
            value.reshape(-1),
            value * math.nan,
        ]
    new = rng.choice(odd)
    if isinstance(holder, dict) and rng.random() < 0.15:
        holder[rng.choice(("x", 3, None, "a" * 300, "\ud800"))] = value
        what = "a key more"
    elif rng.random() < 0.15:
        del holder[key]
        what = "a key less"
    else:
        holder[key] = new
        what = repr(new)[:60]
    with contextlib.suppress(Exception):
        content["crc32"] = _checksum(content) if path != ["crc32"] else content["crc32"]
    made = io.BytesIO()
    torch.save(content, made)
    return Edit(made.getvalue(), f"{'.'.join(map(str, path))}: {what}")


def _use_checkpoint(files, folder, rng):
    code, said = run(
        "predict", folder / "in" / "last.pt", folder / "in" / "image", folder / "out", "-q", "--device", "cpu"
    )
    if code:
        raise RwtoolError(said)
    labels = rwtool.read_labels(folder / "out" / "a.nii").array
    if not np.isin(labels, (0, 1, 4)).all() and files.same:
        raise FindingError(f"{np.unique(labels)}")


STUDIES = {
    "maps": Folder(
        _make_maps,
        {
            r"maps\.json$": edit_json,
            r"journal$": _edit_journal,
            r"\.nii\.gz$": _edit_packed,
            r"\.npy$": edit_bytes,
        },
        _use_maps,
    ),
    "dataset": Folder(_make_dataset, {r"dataset\.json": edit_json}, _use_dataset),
    "split": Folder(_make_split, {r"\.json": edit_json, r"\.txt": edit_table}, _use_split),
    "config": Folder(_make_config, {"": _edit_toml}, _use_config),
    "tables": Folder(_make_tables, {r"\.csv": edit_table, r"\.json": _edit_summary}, _use_tables),
    "groups": Folder(_make_groups, {r"\.csv": edit_table}, _use_groups),
    "names": Folder(_make_names, {r"\.tsv": lambda rng, data: edit_table(rng, data, "\t")}, _use_names),
    "curves": Folder(_make_curves, {r"\.csv": edit_table, r"\.json": edit_json, r"\.toml": _edit_toml}, _use_curves),
    "cache": Folder(_make_cache, {r"out/cache/": edit_json}, _use_cache),
    "nnunet": Folder(_make_nnunet, {r"(dataset|plans)\.json": edit_json}, _use_nnunet),
    "plans": Folder(_make_plans, {r"Plans\.json": edit_json}, _use_plans),
    "checkpoint": Folder(_make_checkpoint, {r"\.pt": _edit_checkpoint}, _use_checkpoint),
}
