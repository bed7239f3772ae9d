"""Mains: `python -m experiments.NAME --config=experiments/configs/X.py --workdir=DIR`."""
