"""Labels to region-wise maps."""
