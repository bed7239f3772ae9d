"""Tests of the union-find `LabelClasses` against a plain relabelling oracle."""

import numpy as np

from gatprune_jax.channels.rules.classes import LabelClasses


def test_classes_agree_with_relabelling():
  rng = np.random.default_rng(0)
  for _ in range(40):
    size = int(rng.integers(2, 60))
    classes, oracle, frozen = LabelClasses(), np.arange(size), np.zeros(size, bool)
    labels = classes.fresh(size)
    for _ in range(int(rng.integers(0, 8))):
      a, b = rng.integers(0, size, (2, int(rng.integers(0, 12))))
      classes.unify(labels[a], labels[b])
      for i, j in zip(a, b, strict=True):
        oracle[oracle == oracle[j]] = oracle[i]
      chosen = rng.integers(0, size, int(rng.integers(0, 2)))
      classes.freeze(labels[chosen], "chosen")
      frozen[chosen] = True
    roots = classes.find(labels)
    same = oracle[:, None] == oracle[None]
    np.testing.assert_array_equal(roots[:, None] == roots[None], same)
    is_frozen = [classes.reason(label) is not None for label in labels]
    np.testing.assert_array_equal(is_frozen, (same & frozen).any(1))


def test_a_long_chain_is_one_class():
  classes = LabelClasses()
  labels = classes.fresh(5000)
  # Steps 4 and 2 make several chains beside each other, which step 1 joins.
  for step in (4, 2, 1):
    classes.unify(labels[:-step], labels[step:])
  assert not classes.find(labels).any()


def test_a_class_is_frozen_with_its_first_reason():
  classes = LabelClasses()
  a, b = classes.fresh(3), classes.fresh(3)
  classes.freeze(b[1:2], "first")
  classes.unify(a, b)
  classes.freeze(a[1:2], "second")
  assert [classes.reason(label) for label in (*a, *b)] == [None, "first", None] * 2


def test_labels_survive_growth():
  classes = LabelClasses()
  first = classes.fresh(10)
  classes.unify(first[:5], first[5:])
  classes.fresh(5000)
  np.testing.assert_array_equal(classes.find(first), np.tile(np.arange(5), 2))
