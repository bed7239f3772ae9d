"""The union-find against a plain relabelling oracle."""

import numpy as np

from gatprune_jax.channels.classes import LabelClasses


def test_classes_agree_with_relabelling():
  rng = np.random.default_rng(0)
  for _ in range(20):
    size = int(rng.integers(2, 60))
    classes, oracle = LabelClasses(), np.arange(size)
    labels = classes.fresh(size)
    for _ in range(int(rng.integers(0, 30))):
      num = int(rng.integers(1, 5))
      a, b = rng.integers(0, size, (2, num))
      classes.unify(labels[a], labels[b])
      for i, j in zip(a, b, strict=True):
        oracle[oracle == oracle[j]] = oracle[i]
    roots = classes.find(labels)
    same = roots[:, None] == roots[None]
    np.testing.assert_array_equal(same, oracle[:, None] == oracle[None])


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
