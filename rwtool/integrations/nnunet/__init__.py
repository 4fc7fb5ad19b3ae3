"""For nnU-Net v2: trainers with region-wise losses, found by the names of their classes."""
