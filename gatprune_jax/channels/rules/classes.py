"""Equivalence classes of channel labels, as a union-find in which a class can be frozen."""

import numpy as np


class LabelClasses:
  """Union-find over integer labels, vectorised over arrays of labels.

  Two labels are in one class when they must be removed together. The labels of a frozen class must
  never be removed; the class stores the first reason that was given for freezing it. A class is one
  of copies if all of its labels were made for the copies of a broadcast value.

  Some labels need not be removed together as long as every group of them loses equally many:
  `balance` notes such groups, and `settle` ties no more of their labels than that needs.
  """

  def __init__(self):
    self._parent = np.empty(1024, np.int64)
    self._size = 0
    self._reasons: dict[int, str] = {}  # root -> why the class is frozen
    self._copies: set[int] = set()  # roots of the classes of copies
    self._balanced: list[np.ndarray] = []  # labels [groups, size] given to `balance`

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
    gone = set(np.concatenate(dropped).tolist())
    for root in sorted(gone & self._reasons.keys()):
      self._reasons.setdefault(self._root(root), self._reasons.pop(root))
    # Only a class of copies that meets another one stays a class of copies.
    if self._copies:
      others = np.array(list(gone - self._copies), np.int64)
      self._copies -= gone
      self._copies.difference_update(self.find(others).tolist())

  def balance(self, groups: np.ndarray) -> None:
    """Demands that all groups lose equally many elements, from `settle` on.

    Args:
      groups: the labels of each group's elements, int64 `[groups, size]`.
    """
    self._balanced.append(groups)

  def settle(self) -> None:
    """Unifies labels until removing any class takes equally many elements from balanced groups.

    A class that already occurs equally often in every group stays as it is, and so does a frozen
    one, which is never removed. Elements of other classes are tied to the elements at the same
    index of all other groups.

    Example: two groups of two elements have the labels [[0, 1], [2, 3]]. If labels 0 and 3 are
    unified and labels 1 and 2 are, nothing more is tied. If only 0 and 3 are, the classes {1} and
    {2} occur in one group only. They are tied to the elements at their index, which gives {1, 3}
    and {0, 2} and, with {0, 3}, one class of all four labels.
    """
    while True:
      loose = [(groups, columns) for groups in self._balanced
               if (columns := self._unbalanced(groups)).any()]  # fmt: skip
      if not loose:
        return
      for groups, columns in loose:
        for other in groups[1:]:
          self.unify(groups[0, columns], other[columns])

  def _unbalanced(self, groups: np.ndarray) -> np.ndarray:
    """Returns at which indices a group holds a class that is removed unequally, bool `[size]`."""
    roots, members = np.unique(self.find(groups), return_inverse=True)
    members = members.reshape(groups.shape)
    counts = np.stack([np.bincount(row, minlength=len(roots)) for row in members])
    is_frozen = np.array([int(root) in self._reasons for root in roots], bool)
    return (~is_frozen & (counts != counts[0]).any(0))[members].any(0)

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
