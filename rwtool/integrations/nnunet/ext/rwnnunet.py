"""What nnU-Net finds where ``nnUNet_extTrainer`` leads: rwtool's trainers, each made when asked for by its name."""

from rwtool.integrations.nnunet.trainer import __getattr__

__all__ = ["__getattr__"]
