"""The search for a pruning schedule: what the paper leaves open is how the keep ratios are chosen."""
