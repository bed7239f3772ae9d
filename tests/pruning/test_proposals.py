"""Tests of the file of proposals, which may be damaged."""

import numpy as np

from gatprune_jax.pruning import Proposal, load_proposals, save_proposals

PROPOSALS = [
  Proposal("agent", np.eye(3, dtype=bool), 10, 1.5, 6),
  Proposal("other", np.eye(3) < 0.5, 7, 0.5),
]


def assert_found(found):
  for here, there in zip(found, PROPOSALS, strict=True):
    np.testing.assert_array_equal(here.masks, there.masks, strict=True)
    assert here._replace(masks=None) == there._replace(masks=None)


def test_a_damaged_file_is_as_good_as_none(tmp_path):
  path = tmp_path / "proposals.npz"
  assert load_proposals(str(path)) is None
  save_proposals(str(path), PROPOSALS)
  assert_found(load_proposals(str(path)))
  whole = path.read_bytes()
  for length in range(0, len(whole), 40):
    path.write_bytes(whole[:length])
    assert load_proposals(str(path)) is None
  # Flipped bits can make a zip archive state that it is encrypted, or compressed by an unknown
  # method.
  for place in range(0, len(whole), 3):
    for bit in (0, 3):
      path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
      if (found := load_proposals(str(path))) is not None:
        assert_found(found)
