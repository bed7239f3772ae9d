"""Tests of the odd seeds of `test_random_networks`, so that two processes share the work."""

import pytest

from tests.channels.test_random_networks import check_law, seeds


@pytest.mark.parametrize("seed", seeds(1))
def test_the_law(seed, tmp_path):
  check_law(seed, tmp_path / "net")
