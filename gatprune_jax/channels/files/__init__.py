"""Saves, loads and exports compact networks."""
