"""One of everything that can be added, each from outside the package; see `test_additions`."""
