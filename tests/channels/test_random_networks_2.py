"""Tests of the odd seeds of `test_random_networks`, so that two processes share the work."""

import pytest

from tests.channels.test_random_networks import cases, check_law


@pytest.mark.parametrize(("kind", "seed"), cases(1))
def test_the_law(kind, seed, tmp_path):
  check_law(kind, seed, tmp_path / "net")
