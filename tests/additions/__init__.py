"""One module for each kind of extension, registered from outside the package.

`tests/test_additions.py` registers all of them and uses them in a search.
"""
