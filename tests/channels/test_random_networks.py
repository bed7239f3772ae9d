"""Tests of the law on random networks: masked, compact and reloaded networks are the same.

Masked and compact networks are also compared after training. This module tests the even seeds;
`test_random_networks_2` tests the odd seeds, so that two test processes can share the work.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels import compact_function, compact_variables
from gatprune_jax.channels.graph import FROZEN
from gatprune_jax.runtime import compilation
from tests.channels.counting import count_macs
from tests.channels.laws import assert_same
from tests.channels.random_networks import draw_case, draw_container_case, draw_token_case

# Each kind of network: how it is drawn, how many seeds are tested, how many of them by default, and
# how many by the default and the long tests. The others are slow tests.
KINDS = {
  "convolutions": (draw_case, 204, 6, 14),
  "tokens": (draw_token_case, 64, 2, 6),
  "containers": (draw_container_case, 32, 2, 4),
}
LEARNING_RATE, MOMENTUM = 0.05, 0.9

# Each program runs only once, so most of its time is compilation. Compilation is faster without
# the emitters of fused kernels and with little optimisation; `known` leaves out the options that
# this version of XLA does not have. The options apply to single programs and not to the whole
# process. At level 0, XLA 0.10.2 for CPUs compiles some networks over tokens to programs that give
# NaN, in dense networks too, where level 1 and evaluation without compilation give numbers.
FAST_TO_COMPILE = {
  level: compilation.known(
    xla_backend_optimization_level=level,
    xla_cpu_use_fusion_emitters=False,
    xla_cpu_parallel_codegen_split_count=1,
  )
  for level in (0, 1)
}


def evaluate(fn, *args, level=0):
  """Compiles fn(*args) as one program, at a level of optimisation, and returns NumPy arrays."""
  return jax.tree.map(np.asarray, jax.jit(fn, compiler_options=FAST_TO_COMPILE[level])(*args))


def random_mask(graph, rng):
  """Returns a mask that keeps a random share of the channels and at least one of each group."""
  mask = rng.random(graph.num_channels) < rng.uniform(0.1, 0.95)
  for group in graph.groups:
    if not mask[group.channels].any():
      mask[rng.choice(group.channels)] = True
  return mask


def trained(train_fn, variables, x, labels):
  """Returns the variables after three steps of SGD with momentum on the cross-entropy.

  Args:
    train_fn: (variables, x) -> (logits, updated statistics).
    variables: the initial variables.
    x: a batch of inputs, `[B, ...]`.
    labels: `[B]` int.
  """

  def loss(params, stats):
    logits, stats = train_fn({"params": params, **stats}, x)
    log_probs = jax.nn.log_softmax(logits)
    return -log_probs[jnp.arange(len(labels)), labels].mean(), stats

  def step(_, carry):
    params, stats, velocity = carry
    gradient, stats = jax.grad(loss, has_aux=True)(params, stats)
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
    return jax.tree.map(lambda p, v: p - LEARNING_RATE * v, params, velocity), stats, velocity

  stats = {name: tree for name, tree in variables.items() if name != "params"}
  start = variables["params"], stats, jax.tree.map(jnp.zeros_like, variables["params"])
  params, stats, _ = jax.lax.fori_loop(0, 3, step, start)
  return {"params": params, **stats}


def first(x, num):
  """Returns the first examples of a batch, an array or a dict of which "anchors" has no batch."""
  if not isinstance(x, dict):
    return x[:num]
  return {name: value if name == "anchors" else value[:num] for name, value in x.items()}


def single(tree):
  """Returns a tree with its floating arrays in single precision."""
  is_float = lambda a: jnp.issubdtype(a.dtype, jnp.floating)
  return jax.tree.map(lambda a: np.float32(a) if is_float(a) else a, tree)


def check_costs(graph, mask, small, x):
  """Raises unless every resource under the mask equals the count on the compact network.

  Args:
    graph: the channel graph of the dense network.
    mask: `[N]` bool, the channels to keep.
    small: the compact network under the mask.
    x: a batch of inputs; what the examples share is computed once for one of them.
  """
  run = lambda variables, _: small.apply(variables, first(x, 1))
  assert gp.macs(graph, mask) == count_macs(run, small.variables, np.empty(1))
  assert gp.params(graph, mask) == sum(p.size for p in jax.tree.leaves(small.variables["params"]))
  assert gp.weight_bytes(graph, mask) == sum(a.nbytes for a in jax.tree.leaves(small.variables))
  # Where one channel is left of a group, broadcasting it moves nothing, so that other arrays may be
  # written over.
  if is_wide(graph, mask):
    again = gp.trace(small.apply, small.variables, x)
    held = gp.activation_bytes(again, np.ones(again.num_channels), batch=3)
    assert gp.activation_bytes(graph, mask, batch=3) == held


def check_training(graph, case, mask, level):
  """Checks the law after three training steps, in float64 to keep rounding errors small.

  Args:
    graph: the channel graph of the dense network.
    case: the network with its functions, variables, inputs and labels.
    mask: `[N]` bool, the channels to keep.
    level: the level of optimisation at which programs are compiled.
  """
  masked_eval = gp.masked(graph, case.eval_fn)
  masked_train = gp.masked(graph, case.train_fn)
  small = gp.compact(graph, case.eval_fn, case.variables, mask)
  small_train = compact_function(graph, case.train_fn, mask)

  def both(variables, mask, small_variables, x, labels):
    masked = trained(lambda v, x: masked_train(v, mask, x), variables, x, labels)
    compact = trained(small_train, small_variables, x, labels)
    return masked, compact, masked_eval(masked, mask, x), small.apply(compact, x)

  args = case.variables, mask, small.variables, case.x, case.labels
  masked, compact, masked_out, compact_out = evaluate(both, *args, level=level)
  assert_same(masked_out, compact_out)
  # The kept weights and statistics must be the same too, not only the outputs.
  jax.tree.map(assert_same, compact_variables(graph, masked, mask), compact)


def is_wide(graph, mask):
  """Returns whether a mask keeps more than one channel of every group.

  An axis of one element is frozen in another trace, for it has nothing to remove. So a network of
  such groups alone cannot be traced again.
  """
  return all(mask[group.channels].sum() > 1 for group in graph.groups)


def check_layers(loaded, small, x, is_traced):
  """Raises unless a network loaded with its layers is the network that was saved.

  Args:
    loaded: the network that was loaded.
    small: the compact network that was saved.
    x: a batch of inputs.
    is_traced: whether both are traced, and their groups compared.
  """
  fewer = first(x, 3)
  found = evaluate(loaded.eval_fn, loaded.variables, fewer)
  assert_same(found, small.apply(small.variables, fewer))
  if not is_traced:
    return
  traced = gp.trace(loaded.eval_fn, loaded.variables, x)
  graph = gp.trace(small.apply, small.variables, x)
  # For a batch of any size JAX makes a gather of some slices, whose rule may freeze an axis of one
  # element. Such a group has nothing to remove.
  widths = lambda graph: [n for group in graph.groups if (n := len(group.channels)) > 1]
  assert widths(traced) == widths(graph)
  macs = [gp.macs(of, np.ones(of.num_channels)) for of in (traced, graph)]
  assert macs[0] == macs[1]


def check_law(kind, seed, path):
  """Draws a network and a mask, and checks the law on outputs, costs, saving and training."""
  case = KINDS[kind][0](seed)
  try:
    x, variables = single(case.x), single(case.variables)
    graph = gp.trace(case.eval_fn, variables, x)
    mask = random_mask(graph, np.random.default_rng(seed))
    small = gp.compact(graph, case.eval_fn, variables, mask)
    gp.save(path, small, x)
    loaded = gp.load(path)

    def all_three(variables, mask, small_variables, x):
      return (
        gp.masked(graph, case.eval_fn)(variables, mask, x),
        small.apply(small_variables, x),
        loaded.apply(loaded.variables, x),
        loaded.apply(loaded.variables, first(x, 3)),
      )

    args, level = (variables, mask, small.variables, x), 1 if kind == "tokens" else 0
    masked, compact, again, fewer = evaluate(all_three, *args, level=level)
    assert_same(masked, compact)
    assert_same(again, compact)
    assert_same(fewer, compact[:3])
    if seed % 8 in (0, 1):  # a quarter of the networks, because it takes as long as all the rest
      check_layers(gp.load(path, trainable=True), small, x, is_wide(graph, mask))
    check_costs(graph, mask, small, x)
    with jax.enable_x64(True):
      check_training(graph, case, mask, level)
  except Exception as error:
    error.add_note(f"{kind}, seed {seed}:\n{case.network}")
    raise


def cases(start):
  """Returns every second case, as parameters (kind, seed) of a test."""
  found = []
  for kind, (_, num, num_quick, num_long) in KINDS.items():
    for seed in range(start, num, 2):
      beyond = pytest.mark.long if seed < num_long else pytest.mark.slow
      marks = () if seed < num_quick else beyond
      found.append(pytest.param(kind, seed, marks=marks))
  return found


@pytest.mark.parametrize(("kind", "seed"), cases(0))
def test_the_law(kind, seed, tmp_path):
  check_law(kind, seed, tmp_path / "net")


@pytest.mark.parametrize(
  "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind == "containers")) for kind in KINDS]
)
def test_most_channels_can_be_removed(kind):
  removable = total = 0
  for seed in range(20):
    case = KINDS[kind][0](seed)
    graph = gp.trace(case.eval_fn, single(case.variables), single(case.x))
    # The last layer is left out, because its outputs are the class logits.
    outputs = np.concatenate([layer.outputs for layer in graph.layers[:-1]])
    removable += (outputs != FROZEN).sum()
    total += len(outputs)
  assert removable > 0.8 * total
