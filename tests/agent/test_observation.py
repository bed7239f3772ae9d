"""Tests of what the agent sees of channels on further axes of a kernel, such as attention heads."""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax.agent.observation import observe
from gatprune_jax.channels.costs.budgets import make_budgets


def test_channels_of_each_axis_of_a_kernel_have_edges_to_its_inputs():
  def fn(v, x):
    hidden = nn.relu(jnp.einsum("ni,iab->nab", x @ v["stem"], v["in"]))
    return jnp.einsum("nab,abo->no", hidden, v["out"])

  rng = np.random.default_rng(0)
  shapes = {"stem": (3, 2), "in": (2, 4, 6), "out": (4, 6, 5)}
  variables = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
  graph = gp.trace(fn, variables, np.ones((1, 3)))
  stem, inner, outer = (group.channels for group in graph.groups)
  assert [len(ids) for ids in (stem, inner, outer)] == [2, 6, 4]
  saliency = {"l1": np.zeros(graph.num_channels)}
  seen = observe(graph, variables, saliency, make_budgets(graph, {"macs": 0.5}), edge_norms=True)
  sets = [(edges.senders.tolist(), edges.receivers.tolist()) for edges in seen.edges]
  for channels in (inner, outer):
    assert (stem.tolist(), channels.tolist()) in sets
    assert (channels.tolist(), stem.tolist()) in sets
  # The node of a layer is beside all of its channels; the layers' nodes follow the channels.
  node = graph.num_channels + [layer.name for layer in graph.layers].index("in")
  assert ([node], list(range(12))) in sets
  # The strength of an edge is the standardised log of the kernel's norm between its channels.
  norms = {False: np.linalg.norm(variables["in"], axis=1),  # [2, 6]
           True: np.linalg.norm(variables["in"], axis=2)}  # [2, 4]  # fmt: skip
  every = np.concatenate([np.log(values).ravel() for values in norms.values()] + [[0.0]])
  forward = seen.edges[sets.index((stem.tolist(), outer.tolist()))]
  expected = (np.log(norms[True]) - every.mean()) / every.std()
  np.testing.assert_allclose(forward.norms, expected, rtol=1e-3)
