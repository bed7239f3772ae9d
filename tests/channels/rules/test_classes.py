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


def loses_equally_many(classes, groups):
  """Returns whether removing any class that is not frozen leaves groups of equal size."""
  roots = classes.find(groups)
  removable = [root for root in np.unique(roots) if classes.reason(root) is None]
  return all(len(set((roots == root).sum(1))) == 1 for root in removable)


def test_balanced_groups_keep_what_already_loses_equally_many():
  classes = LabelClasses()
  groups = classes.fresh(6).reshape(2, 3)
  classes.balance(groups)
  classes.unify(groups[0], groups[1, ::-1])
  classes.settle()
  np.testing.assert_array_equal(classes.find(groups), [[0, 1, 2], [2, 1, 0]])


def test_balanced_groups_tie_no_class_that_is_never_removed():
  classes = LabelClasses()
  groups = classes.fresh(6).reshape(2, 3)
  classes.balance(groups)
  classes.freeze(groups[0, :1], "chosen")
  classes.freeze(groups[1, :1], "chosen")
  classes.settle()
  np.testing.assert_array_equal(classes.find(groups), [[0, 1, 2], [3, 1, 2]])


def test_random_balanced_groups_always_stay_equal_in_size():
  rng = np.random.default_rng(0)
  for _ in range(60):
    classes = LabelClasses()
    size = int(rng.integers(4, 40))
    labels = classes.fresh(size)
    several = [
      rng.permutation(size)[: num * (size // num)].reshape(num, -1) for num in rng.integers(2, 4, 2)
    ]
    for groups in several:
      classes.balance(groups)
    a, b = rng.integers(0, size, (2, int(rng.integers(0, 6))))
    classes.unify(labels[a], labels[b])
    classes.freeze(labels[rng.integers(0, size, 1)], "chosen")
    classes.settle()
    assert all(loses_equally_many(classes, groups) for groups in several)
