"""What the map costs beside a training step: `rwtool.RegionWiseLoss` against cross entropy, on a small U-Net.

    python tests/benchmarks/bench_loss.py [--device cuda] [--repeat 20] [--threads 1]

A step is forward, loss, backward and optimiser on slices of 256 x 256, batch 12, and on volumes of 64^3, batch 2. The
map of every batch is made anew from its labels, on the host. All sides run in turn, so that a machine's mood meets all.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn

import rwtool

CASES = {"2D, 12 x 256 x 256": (12, 256, 256), "3D, 2 x 64 x 64 x 64": (2, 64, 64, 64)}
CLASSES = 4


def block(convolution, norm, before, after):
    layers = []
    for channels in (before, after):
        layers += [convolution(channels, after, 3, padding=1), norm(after), nn.ReLU()]
    return nn.Sequential(*layers)


class SmallUNet(nn.Module):
    """Three stages, two or three spatial axes."""

    def __init__(self, axes, features=16):
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        widths = [features << stage for stage in range(3)]
        self.down = nn.ModuleList(
            block(convolution, norm, before, after) for before, after in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            block(convolution, norm, below + here, here)
            for below, here in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.pool = nn.MaxPool2d(2) if axes == 2 else nn.MaxPool3d(2)
        self.head = convolution(features, CLASSES, 1)

    def forward(self, x):
        kept = []
        for stage in self.down:
            x = stage(x if not kept else self.pool(x))
            kept.append(x)
        for stage, skip in zip(self.up, kept[-2::-1], strict=True):
            x = stage(torch.cat([nn.functional.interpolate(x, size=skip.shape[2:]), skip], dim=1))
        return self.head(x)


def phantoms(shape, seed=0):
    """Labels of nested ellipsoids, another centre in each image."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape[1:]).astype(float)
    images = []
    for _ in range(shape[0]):
        offset = [(n / 2 + rng.uniform(-n / 8, n / 8)) for n in shape[1:]]
        radius = np.sqrt(sum(((g - o) / n) ** 2 for g, o, n in zip(grid, offset, shape[1:], strict=True)))
        images.append(np.searchsorted([0.12, 0.2, 0.3], radius))
    return torch.from_numpy((CLASSES - 1) - np.stack(images))


class Side:
    """A network of its own with a loss."""

    def __init__(self, loss, axes, device):
        torch.manual_seed(0)
        self.net = SmallUNet(axes).to(device)
        self.loss, self.optimiser, self.seconds = loss, torch.optim.Adam(self.net.parameters()), []
        self.device = device

    def step(self, image, labels):
        start = time.perf_counter()
        self.optimiser.zero_grad()
        self.loss(self.net(image), labels).backward()
        self.optimiser.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, help="of the distance transforms; by default those of torch")
    options = parser.parse_args()
    device = torch.device(options.device)
    threads = options.threads or torch.get_num_threads()
    print(f"{device}, {torch.get_num_threads()} threads of torch, {threads} of the distance transforms")
    for name, shape in CASES.items():
        axes = len(shape) - 1
        labels = phantoms(shape).to(device)
        image = torch.randn(shape[0], 1, *shape[1:], device=device) + labels.unsqueeze(1)
        sides = {"cross entropy": Side(nn.CrossEntropyLoss(), axes, device)}
        for kind in ("rrw", "boundary"):
            loss = rwtool.RegionWiseLoss(kind, spacing_mm=(1.0,) * axes, threads=options.threads)
            sides[kind] = Side(loss, axes, device)
        for n in range(options.repeat + 2):
            for side in sides.values():
                side.step(image, labels)
                if n < 2:  # warm up
                    side.seconds.clear()
        plain = sides["cross entropy"].seconds
        print(f"{name}: a step with cross entropy takes {1e3 * statistics.median(plain):.1f} ms")
        for kind in ("rrw", "boundary"):
            ratios = [ours / theirs for ours, theirs in zip(sides[kind].seconds, plain, strict=True)]
            print(
                f"  {kind:>8}: {1e3 * statistics.median(sides[kind].seconds):7.1f} ms, "
                f"{statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
