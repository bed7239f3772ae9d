"""Code that the main programs share: command line, settings, data and the dense network."""
