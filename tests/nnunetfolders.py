"""nnU-Net's folders as it writes them. Label files are empty unless a writer is given: pairing goes by their names."""

import json

DATASET = "Dataset001_Heart"
LABELS = {"background": 0, "ventricle": 1}
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def describe(folder, *, ending=".nii.gz", labels=LABELS, plans=True):
    """What nnU-Net writes beside labels, models and predictions; its plans hold numbers that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ending}))
    if plans:
        plans = {"dataset_name": DATASET, "plans_name": "nnUNetPlans", "median": float("nan")}
        (folder / "plans.json").write_text(json.dumps(plans))


def put(folder, cases, ending=".nii.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / f"{case}{ending}").touch()


def make_fold(model, fold, cases, ending=".nii.gz"):
    """A fold that was trained and validated with --npz."""
    validation = model / f"fold_{fold}" / "validation"
    put(validation, cases, ending)
    for case in cases:
        (validation / f"{case}.npz").touch()
        (validation / f"{case}.pkl").touch()
    (validation / "summary.json").write_text("{}")
    (validation.parent / "checkpoint_final.pth").touch()
    (validation.parent / "progress.png").touch()
    return validation


def make_model(results, name=MODEL, folds=("ab", "cd"), **how):
    """A model whose folds were validated on these cases; in `results`, that of a data set."""
    model = results / name
    describe(model, **how)
    for fold, cases in enumerate(folds):
        make_fold(model, fold, cases, how.get("ending", ".nii.gz"))
    return model


def make_collected(model, cases="abcd", name="crossval_results_folds_0_1"):
    folder = model / name
    describe(folder)
    put(folder, cases)
    (folder / "summary.json").write_text("{}")
    return folder


def make_predicted(folder, cases="ab"):
    """What nnUNetv2_predict writes."""
    describe(folder)
    put(folder, cases)
    (folder / "predict_from_raw_data_args.json").write_text("{}")
    return folder


def make_project(folder):
    """Six references a to f under raw and preprocessed, and two models validated on a to d under results."""
    raw = folder / "raw" / DATASET
    describe(raw, plans=False)
    put(raw / "labelsTr", "abcdef")
    preprocessed = folder / "preprocessed" / DATASET
    describe(preprocessed, plans=False)
    put(preprocessed / "gt_segmentations", "abcdef")
    results = folder / "results" / DATASET
    make_model(results)
    make_model(results, "nnUNetTrainerRRW__nnUNetPlans__3d_fullres")
    return results
