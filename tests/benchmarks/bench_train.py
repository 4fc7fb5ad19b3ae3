"""Time the training loop: what its pipeline costs, slices per second at nnU-Net's plans, and nnU-Net itself.

    python tests/benchmarks/bench_train.py [--device auto] [--steps 20] [--rounds 5] [--loss rrw] [--plan hippocampus]
    python tests/benchmarks/bench_train.py --nnunet IMAGES LABELS [--plan hippocampus]      (needs pip install nnunetv2)

Synthetic slices of the plan's size (hippocampus: 56 x 40, 366 a step; acdc: 256 x 224, 58 a step; features 32 to 512).

(a) Seconds per step of the real loop (gather, augment, forward, loss, backward, Adam) over seconds per step of the same
    network and loss on one batch that stays on the device; both in turn, in every round.
(b) Slices per second of the real loop, and on CUDA the peak of allocated memory.
(c) With --nnunet, the same for nnU-Net v2's 2D trainer on the files given, which nnU-Net plans and preprocesses itself
    in a temporary folder: its own network, loss, optimiser, data loader and augmentation, at its own patch and batch;
    rwtool's loop then runs at that patch, batch and depth, on the same files. Prints the ratio of slices per second.

The loop here is that of rwtool.training.loop less what is done once an epoch.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rwtool.datasets.cases import find_cases
from rwtool.datasets.classes import make_classes
from rwtool.network.checkpoint import Task, build_network
from rwtool.network.config import TrainConfig
from rwtool.network.devices import autocast, resolve_amp, resolve_device, to_device
from rwtool.network.normalization import Normalization
from rwtool.training.cohort import Case, Source, plan_cohort, read_cohort
from rwtool.training.map_source import plan_map_use
from rwtool.training.objective import Objective
from rwtool.training.slices import SliceSet

PLANS = {"hippocampus": ((56, 40), 366, 4), "acdc": ((256, 224), 58, 6)}  # patch, batch, stages


def synthetic_cases(patch, slices, n_classes=3):
    """One case of noise with discs, a little smaller than the patch."""
    rng = np.random.default_rng(0)
    height, width = patch[0] - 6, patch[1] - 4
    y, x = np.indices((height, width))
    radius = np.hypot(y - height / 2, x - width / 2)
    codes = np.full((slices, height, width), 1, dtype=np.uint8)
    for k in range(1, n_classes):
        codes[:, radius < min(height, width) * 0.4 / k] = k + 1
    image = (codes[np.newaxis] + rng.normal(size=(1, *codes.shape))).astype(np.float16)
    magnitudes = rng.random((n_classes, *codes.shape), dtype=np.float32).astype(np.float16)
    return [Case("synthetic", image, codes, magnitudes, (1.0, 1.0), None, ())]


def with_channels(cases, channels):
    """The magnitudes that a loss takes: none, the own one, or one per class."""
    return [
        Case(c.name, c.image, c.codes, c.magnitudes[:channels] if channels else None, c.pixel_mm, None, ())
        for c in cases
    ]


class Loop:
    """Steps of the training loop, as rwtool.training.loop does them."""

    def __init__(self, cases, config, device, n_classes=3, map_use=None, *, stacked=True):
        self.device, self.config = device, config
        classes = make_classes(range(n_classes))
        kind = config.map_kind
        self.map_use = map_use or (None if kind is None else plan_map_use(kind, None, classes))
        if map_use is None:
            cases = with_channels(cases, 0 if self.map_use is None else self.map_use.channels)
        scales = self.map_use is not None and self.map_use.scales
        self.data = SliceSet(cases, device, config.patch, scale_magnitudes=scales, stacked=stacked)
        network = build_network(config, Task(classes, cases[0].image.shape[0], False, Normalization()))
        self.network = to_device(network, device).train()
        self.forward = torch.compile(self.network) if config.compile else self.network
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        self.objective = Objective(config, self.map_use, device)
        self.epoch = 0

    def step(self, batch):
        images = batch.images
        if self.device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.config.amp, self.device):
            logits = self.forward(images)
        loss = self.objective(logits, batch, 0)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def real(self, steps):
        """Seconds per step through the pipeline."""
        batches = self._batches()
        next(batches)  # the plan of the epoch is drawn once
        start = self._now()
        for _ in range(steps):
            self.step(next(batches))
        return (self._now() - start) / steps

    def fixed(self, steps):
        """Seconds per step on one batch that stays where it is."""
        batch = next(self._batches())
        start = self._now()
        for _ in range(steps):
            self.step(batch)
        return (self._now() - start) / steps

    def _batches(self):
        while True:
            self.epoch += 1
            yield from self.data.batches(self.data.plan_epoch(self.config.batch_size, 0, self.epoch))

    def _now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def spread(values, form="{:.3f}"):
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} to {form.format(max(values))})"


def describe(device):
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def race_pipeline(plan, options, device):
    patch, batch, stages = PLANS[plan]
    config = TrainConfig(
        loss=options.loss, patch=patch, batch_size=batch, depth=stages, amp=resolve_amp(options.amp, device),
        compile=options.compile, features=options.features,
    )  # fmt: skip
    loop = Loop(synthetic_cases(patch, batch * (options.steps + 2)), config, device)
    loop.real(options.warmup)
    loop.fixed(options.warmup)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pairs = [(loop.real(options.steps), loop.fixed(options.steps)) for _ in range(options.rounds)]
    print(f"{plan}: patch {patch[0]} x {patch[1]}, {batch} a step, {config.loss}, amp {config.amp}")
    print(f"  (a) real loop over fixed batch: {spread([real / fixed for real, fixed in pairs])}")
    print(f"  (b) slices per second: {spread([batch / real for real, _ in pairs], '{:.0f}')}")
    if device.type == "cuda":
        print(f"      peak of allocated memory: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")


def nnunet_trainer(images, labels, root, device):
    """nnU-Net's trainer on these files, planned and preprocessed by nnU-Net."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ.setdefault("nnUNet_compile", "True" if device.type == "cuda" else "False")
    dataset = root / "raw" / "Dataset001_Bench"
    cases = find_cases(labels)
    values = sorted({int(v) for path in cases.values() for v in np.unique(_array(path))})
    for folder in ("imagesTr", "labelsTr"):
        (dataset / folder).mkdir(parents=True)
    for name, path in cases.items():
        shutil.copy(path, dataset / "labelsTr" / path.name)
        shutil.copy(Path(images) / path.name, dataset / "imagesTr" / f"{name}_0000.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **{f"class{v}": v for v in values if v}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (dataset / "dataset.json").write_text(json.dumps(content))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    extract_fingerprints([1], num_processes=2)
    plan_experiments([1])
    preprocess([1], configurations=("2d",), num_processes=(2,))
    made = root / "preprocessed" / "Dataset001_Bench"
    plans = json.loads((made / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    trainer = nnUNetTrainer(plans, "2d", "all", json.loads((made / "dataset.json").read_text()), device=device)
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    return trainer


def _array(path):
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj)


def race_nnunet(options, device):
    images, labels = options.nnunet
    with tempfile.TemporaryDirectory() as folder:
        trainer = nnunet_trainer(images, labels, Path(folder), device)
        patch = tuple(int(n) for n in trainer.configuration_manager.patch_size)
        batch = int(trainer.batch_size)
        stages = len(trainer.configuration_manager.pool_op_kernel_sizes)
        amp = resolve_amp(options.amp, device)
        config = TrainConfig(
            loss=options.loss, patch=patch, batch_size=batch, depth=stages, amp=amp, features=options.features,
            compile=options.compile, val=0,
        )  # fmt: skip
        cohort = read_cohort(plan_cohort(Source(images, labels), config), config, verbosity=-1)
        n_classes = len(cohort.classes)
        cases = [cohort.cases[name] for name in cohort.split.train]
        loop = Loop(cases, config, device, n_classes, cohort.map_use)

        def theirs(steps):
            start = loop._now()
            for _ in range(steps):
                trainer.train_step(next(trainer.dataloader_train))
            return (loop._now() - start) / steps

        theirs(options.warmup)
        loop.real(options.warmup)
        pairs = [(theirs(options.steps), loop.real(options.steps)) for _ in range(options.rounds)]
        print(f"(c) {Path(images)}: patch {patch[0]} x {patch[1]}, {batch} a step, {stages} stages")
        print(f"  nnU-Net v2: {spread([batch / a for a, _ in pairs], '{:.0f}')} slices per second")
        print(f"  rwtool, {config.loss}, amp {amp}: {spread([batch / b for _, b in pairs], '{:.0f}')}")
        print(f"  ratio: {spread([a / b for a, b in pairs], '{:.2f}')}")
        sys.stdout.flush()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # the loaders of nnU-Net wait for ever


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plan", choices=[*PLANS, "all"], default="all")
    parser.add_argument("--loss", default="rrw")
    parser.add_argument("--amp", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nnunet", nargs=2, metavar=("IMAGES", "LABELS"))
    options = parser.parse_args()
    device = resolve_device(options.device)
    print(describe(device))
    if options.nnunet:
        race_nnunet(options, device)
    for plan in PLANS if options.plan == "all" else [options.plan]:
        race_pipeline(plan, options, device)


if __name__ == "__main__":
    main()
