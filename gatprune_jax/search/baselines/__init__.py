"""Baselines: the other searches, with which the agent is compared."""
