"""A LightningModule as a user would write it: rwtool's loss and metric, and a network of one convolution."""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from rwtool import RegionWiseLoss
from rwtool.integrations.torchmetrics import SegmentationMetrics

SPACING = (2.5, 1.0, 0.8)


def make_cases(number=5):
    """Images of cubes of two classes, some of them in noise; (N, 1, 6, 10, 12) floats and (N, 6, 10, 12) labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(number, 6, 10, 12, dtype=torch.int64)
    for k in range(number):
        labels[k, 1:4, 2:7, 2 + k % 3 : 6 + k % 3] = 1
        labels[k, 2:4, 4:7, 3:5] = 2
    images = labels.float() + 0.2 * torch.randn(labels.shape, generator=generator)
    return images[:, None], labels


class Segmenter(lightning.LightningModule):
    def __init__(self, kind="rrw"):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, 3, 3, padding=1)
        )
        self.loss = RegionWiseLoss(kind, spacing_mm=SPACING, mixed_with="ce")
        self.metric = SegmentationMetrics(3, spacing_mm=SPACING, tolerance_mm=1.0, threads=1)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, _):
        loss = self.loss(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch, _):
        self.metric.update(self(batch[0]), batch[1])

    def on_validation_epoch_end(self):
        self.log_dict(self.metric.compute())
        self.metric.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.mine(4)), batch_size=1)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*self.mine(5)), batch_size=2)

    def mine(self, number):
        """The cases of this process: of 5 it is 3 and 2, where there are two."""
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        return [tensor[rank::processes] for tensor in make_cases(number)]
