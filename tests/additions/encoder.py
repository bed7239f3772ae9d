"""An encoder added from outside: every node adds up its neighbours' messages."""

from flax import linen as nn
import jax
import numpy as np

from gatprune_jax.agent.encoders import ENCODERS, Encoder

NAME = "sums"


def lay_out(sets, num_nodes):
  pairs = [np.meshgrid(one.senders, one.receivers) for one in sets]
  return tuple(np.concatenate([ends[i].ravel() for ends in pairs]) for i in (0, 1))


def encode(config, nodes, edges):
  senders, receivers = edges
  for index in range(config.layers):
    messages = nn.Dense(nodes.shape[-1], name=f"message{index}")(nodes)
    heard = jax.ops.segment_sum(messages[senders], receivers, len(nodes))
    nodes = nodes + nn.tanh(heard)
  return nodes


def add(setitem):
  setitem(ENCODERS, NAME, Encoder(lay_out, encode))
