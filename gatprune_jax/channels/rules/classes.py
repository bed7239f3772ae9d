"""Equivalence classes of channel labels, as a union-find in which a class can be frozen."""

import numpy as np


class LabelClasses:
  """Union-find over integer labels, vectorised over arrays of labels.

  Two labels are in one class when they must be removed together. The labels of a frozen class must
  never be removed; the class stores the first reason that was given for freezing it. A class is one
  of copies if all of its labels were made for the copies of a broadcast value.
  """

  def __init__(self):
    self._parent = np.empty(1024, np.int64)
    self._size = 0
    self._reasons: dict[int, str] = {}  # root -> why the class is frozen
    self._copies: set[int] = set()  # roots of the classes of copies

  def __len__(self) -> int:
    return self._size

  def fresh(self, num: int, copies: bool = False) -> np.ndarray:
    """Makes `num` new labels, each in a class of its own. Returns them, int64 `[num]`.

    Args:
      num: number of labels.
      copies: whether they are for the copies of a broadcast value.
    """
    labels = np.arange(self._size, self._size + num)
    self._size += num
    if self._size > len(self._parent):
      grown = np.empty(2 * self._size, np.int64)
      grown[: len(self._parent)] = self._parent
      self._parent = grown
    self._parent[labels] = labels
    if copies:
      self._copies.update(labels.tolist())
    return labels

  def find(self, labels: np.ndarray) -> np.ndarray:
    """Returns the representative label of each label's class, same shape."""
    roots = self._parent[labels]
    while True:
      above = self._parent[roots]
      if np.array_equal(above, roots):
        break
      self._parent[labels] = roots = above  # path compression
    return roots

  def unify(self, first: np.ndarray, second: np.ndarray) -> None:
    """Merges the classes of `first[i]` and `second[i]` for every i; equal shapes."""
    if first is second:
      return
    dropped = [np.empty(0, np.int64)]
    while True:
      a, b = self.find(first), self.find(second)
      differ = a != b
      if not differ.any():
        break
      # One round attaches a root only to the lowest of the roots it is paired with. The next round
      # merges the other pairs.
      dropped.append(np.maximum(a, b)[differ])
      np.minimum.at(self._parent, dropped[-1], np.minimum(a, b)[differ])
    for root in np.unique(np.concatenate(dropped)).tolist():
      if root in self._reasons:
        self._reasons.setdefault(self._root(root), self._reasons.pop(root))
      # Only a class of copies that meets another one stays a class of copies.
      if root in self._copies:
        self._copies.discard(root)
      else:
        self._copies.discard(self._root(root))

  def freeze(self, labels: np.ndarray, reason: str) -> None:
    """Marks the classes of these labels as never removable; an earlier reason stays."""
    for root in np.unique(self.find(labels)):
      self._reasons.setdefault(int(root), reason)

  def are_copies(self, labels: np.ndarray) -> bool:
    """Returns whether all of these labels are in classes of copies."""
    return self._copies.issuperset(self.find(labels).tolist())

  def are_frozen(self, labels: np.ndarray) -> bool:
    """Returns whether the classes of all of these labels are frozen."""
    return self._reasons.keys() >= set(self.find(labels).tolist())

  def reason(self, label: int) -> str | None:
    """Returns why the label's class is frozen, or None if the class is not frozen."""
    return self._reasons.get(self._root(label))

  def _root(self, label: int) -> int:
    while self._parent[label] != label:
      label = self._parent[label]
    return int(label)
