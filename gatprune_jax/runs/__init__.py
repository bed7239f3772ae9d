"""Files and reports of a run: checkpoints to resume from, metrics, results, tables, plots."""
