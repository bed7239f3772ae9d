"""Main programs: `python -m experiments.NAME --config=experiments/configs/X.py --workdir=DIR`."""
