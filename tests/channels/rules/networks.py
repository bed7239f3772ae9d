"""A network in whose middle an operation is tried, and the check of what the operation allows."""

from flax import linen as nn

from tests.channels.rules.test_rules import check, conv, weights

CHANNELS = (4, 6)  # of the layer before the operation, and of the layer after it
SHAPE = (2, 6, 6, CHANNELS[0])  # of what the operation is given


def around(operation, width=CHANNELS[0]):
  """Returns a network with an operation between two convolutions, and its variables.

  Args:
    operation: maps an array of `SHAPE` to one `[2, h, w, width]`.
    width: number of channels that the operation returns.
  """

  def fn(v, x):
    y = operation(nn.relu(conv(x, v["a"])))
    return nn.relu(conv(y, v["b"])).mean((1, 2)) @ v["c"]

  before, after = CHANNELS
  return fn, weights(a=(1, 1, 3, before), b=(1, 1, width, after), c=(after, 2))


def assert_carries(operation, width=CHANNELS[0]):
  """Checks that both layers around an operation can be pruned, with the laws; returns the graph."""
  graph = check(*around(operation, width))
  assert [len(group.channels) for group in graph.groups] == list(CHANNELS)
  return graph


def assert_freezes(operation, reason, width=CHANNELS[0]):
  """Checks that only the layer after an operation can be pruned, and why the first one cannot."""
  graph = check(*around(operation, width))
  assert [group.name for group in graph.groups] == ["b"]
  assert reason in graph.frozen["a"]
  return graph
