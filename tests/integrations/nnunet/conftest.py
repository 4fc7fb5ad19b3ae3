"""Twelve real cases, planned and preprocessed by nnU-Net, and its trainings made short."""

import functools
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

DATASET = "Dataset004_Hippocampus"
PLANS = "nnUNetPlans"
CASES = 12
ITERATIONS = 4

os.environ.setdefault("nnUNet_def_n_proc", "2")  # which nnU-Net reads when it is imported


def make_torchvision_importable():
    """Declare the operators of a torchvision that was built for CUDA, beside a torch that was not."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    try:
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
    finally:
        sys.modules.setdefault("_torchvision_operators", library)  # it is undone with the library


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory):
    """nnU-Net as it is installed, its folders and rwtool's trainers named by the environment."""
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed")
    folder = tmp_path_factory.mktemp("nnunet")
    from rwtool.integrations.nnunet.names import trainer_folder

    variables = {
        "nnUNet_raw": folder / "raw",
        "nnUNet_preprocessed": folder / "preprocessed",
        "nnUNet_results": folder / "results",
        "nnUNet_extTrainer": trainer_folder(),
        "nnUNet_n_proc_DA": 1,
        "nnUNet_compile": "f",
        "OMP_NUM_THREADS": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            make_torchvision_importable()
        yield folder


@pytest.fixture(scope="session")
def preprocessed(nnunet):
    """The preprocessed data set, its networks and batches made small; no test may change it."""
    data = os.environ.get("RWTOOL_TEST_DATA")
    if not data:
        pytest.skip("RWTOOL_TEST_DATA does not name a folder of real volumes")
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    raw = nnunet / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    source = Path(data) / "hippocampus"
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (source / "labels").glob("*.nii.gz"))[:CASES]
    for case in cases:
        shutil.copy(source / "images" / f"{case}.nii.gz", raw / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(source / "labels" / f"{case}.nii.gz", raw / "labelsTr")
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.use", lambda *_, **__: None)
        api.extract_fingerprints([4], num_processes=1)
        api.plan_experiments([4])
        api.preprocess([4], configurations=("2d", "3d_fullres"), num_processes=(1, 1))
    folder = nnunet / "preprocessed" / DATASET
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    for name, batch in (("2d", 4), ("3d_fullres", 2)):
        plans["configurations"][name]["batch_size"] = batch
        plans["configurations"][name]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 8, 8]
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    plans["configurations"]["3d_cascade_fullres"] = cascade
    (folder / f"{PLANS}.json").write_text(json.dumps(plans))
    (folder / "splits_final.json").write_text(json.dumps([{"train": cases[:10], "val": cases[10:]}]))
    return folder


@pytest.fixture(scope="session")
def maps(preprocessed, nnunet):
    """Folder of stored maps of both configurations, of each kind, as the trainers ask for them."""
    from rwtool import make_maps

    for configuration in ("2d", "3d_fullres"):
        name = f"{PLANS}_{configuration}"
        out = nnunet / "maps" / DATASET / name
        where = {"labels": preprocessed / name, "out": out, "format": "npy", "jobs": 1}
        assert not make_maps(kinds=["rrw"], layout="packed", dtype="float16", **where).failed
        assert not make_maps(kinds=["boundary", "hd"], **where).failed
        assert not make_maps(kinds=["skeleton"], layout="packed", **where).failed
    return nnunet / "maps"


@pytest.fixture
def at_maps(maps, monkeypatch):
    """The folder of stored maps, named to the trainers."""
    monkeypatch.setenv("RWTOOL_NNUNET_MAPS", str(maps))
    return maps


@pytest.fixture
def short(monkeypatch):
    """Trainings of 4 iterations an epoch, without the validation at their end."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    whole = nnUNetTrainer.__init__

    @functools.wraps(whole)
    def begin(self, *arguments, **named):
        whole(self, *arguments, **named)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = ITERATIONS, 1

    monkeypatch.setattr(nnUNetTrainer, "__init__", begin)
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, *_: None)
    monkeypatch.setattr(nnUNetTrainer, "plot_network_architecture", lambda self: None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")


@pytest.fixture
def trainer(preprocessed, short):
    """Function that makes the trainer of a name as nnU-Net does, for the CPU."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    def make(name, configuration="2d", *, initialize=True, **dataset):
        import nnunetv2.run.run_training as module

        with pytest.MonkeyPatch.context() as patch:
            load = module.load_json
            patch.setattr(
                module, "load_json", lambda path: {**load(path), **(dataset if "dataset.json" in path else {})}
            )
            made = get_trainer_from_args("4", configuration, 0, name, device=torch.device("cpu"))
        if initialize:
            made.initialize()
        return made

    return make
