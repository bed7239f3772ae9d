"""Traces a function's jaxpr into the graph of its channels."""
