"""Tests of the odd seeds of `test_random_networks`, so that two processes share the work."""

import pytest

from tests.channels.test_random_networks import NUM_NETWORKS, check_law


@pytest.mark.parametrize("seed", range(1, NUM_NETWORKS, 2))
def test_the_law(seed, tmp_path):
  check_law(seed, tmp_path / "net")
