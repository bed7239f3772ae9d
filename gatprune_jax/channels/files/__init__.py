"""Compact networks on disk."""
