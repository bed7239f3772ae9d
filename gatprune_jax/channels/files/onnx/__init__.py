"""Exports networks to ONNX: each equation of the network's program becomes nodes of a graph."""
