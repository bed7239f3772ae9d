"""What a run leaves behind and goes on from: checkpoints, metrics, results, tables, plots."""
