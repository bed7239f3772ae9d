"""From a function's jaxpr to the graph of its channels."""
