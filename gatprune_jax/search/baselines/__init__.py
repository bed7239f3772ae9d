"""Searches that the agent is compared with."""
