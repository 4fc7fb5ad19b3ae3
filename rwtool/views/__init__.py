"""Pictures of cases, data sets and gradients."""
