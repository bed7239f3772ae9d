"""ResNet-8 on scikit-learn's digits, pruned to a quarter of its MACs: the embedded default.

Reference: method of arXiv 2509.10526; the network is the CIFAR ResNet of arXiv 1512.03385 with
  n = 1 and option-B shortcuts, 224 channels.
Command: python -m experiments.prune --workdir=/tmp/digits
Hardware: 2 CPU cores.
Time and numbers: see README.md, "Results".

`:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.configs import variants


def get_config(variant: str = "") -> ConfigDict:
  config = ConfigDict()
  config.seed = 0  # splits, weights, data order and search
  # "digits"; "cifar10", "cifar100" or "imagenet2012", of a TFDS directory; "npz", a file; "folder",
  # with one folder for each class.
  config.dataset = "digits"
  config.data_dir = ""
  config.image_size = 0  # side that photographs are cropped to when they are read; 0: as they are
  config.unreadable_images = 0  # damaged files that are left out before the run is refused
  # Of each part. Train 0: all that are left; test 0: all test images, where the data set has some.
  config.images = ConfigDict()
  config.images.train = 0
  config.images.reward = 400
  config.images.select = 300
  config.images.test = 400

  config.model = ConfigDict()
  config.model.name = "resnet8"  # of gatprune_jax.models; fields besides name and dtype are its own
  config.model.dtype = "auto"  # bfloat16 on accelerators, float32 on CPU; or one of these two
  config.model.widths = (16, 32, 64)  # channels of the three stages
  config.model.shortcut = "B"  # "A" pads, "B" projects

  # The dense network. An empty checkpoint means: train it first.
  config.dense = ConfigDict()
  config.dense.checkpoint = ""  # workdir of a finished experiments.train, for experiments.prune
  config.dense.weights = ""  # PyTorch file to start training from; empty: random weights
  config.dense.recipe = ConfigDict()
  config.dense.recipe.epochs = 60
  config.dense.recipe.batch_size = 64
  config.dense.recipe.learning_rate = 0.1  # peak
  config.dense.recipe.warmup_epochs = 2.0
  config.dense.recipe.momentum = 0.9  # Nesterov
  config.dense.recipe.weight_decay = 5e-4  # on kernels only
  config.dense.recipe.label_smoothing = 0.0  # share of the target spread over the classes
  config.dense.recipe.shift = 1  # largest random shift, pixels
  config.dense.recipe.flip = False  # mirror images left to right at random; not for digits
  config.dense.recipe.crop_area = 1.0  # smallest share of a photograph in its random crop
  config.dense.recipe.mixup = 0.0  # a of Beta(a, a), the share of an image mixed with another
  config.dense.recipe.average = 0.0  # decay of the moving average of the weights that is kept
  config.dense.recipe.distillation = 0.0  # there is no teacher for the dense network
  config.dense.recipe.temperature = 1.0

  # Largest share of the dense network's cost, above 0; 1 does not constrain.
  config.budgets = ConfigDict()
  config.budgets.macs = 0.25
  config.budgets.params = 1.0

  # Saliency scores: baselines, and features of the agent ("random" only a baseline).
  config.criteria = ("random", "l1", "l2", "bn_scale", "fpgm", "taylor")

  config.search = ConfigDict()
  config.search.updates = 54
  config.search.samples = 32  # masks scored in each update
  config.search.schedule = "one_shot"  # or "layerwise": one group of channels a step
  config.search.constraint = "lagrangian"  # or "projection": every sample is cut to the budget
  config.search.keep_floor = 0.05  # smallest share of each group; at least one channel stays
  config.search.allow_empty = False  # may a group that a shortcut bypasses be removed whole?
  config.search.likelihood_weight = 0.5  # score = accuracy + weight * log-likelihood
  config.search.likelihood_bound = 5.0  # log-likelihoods count at least minus this, nats
  config.search.self_competition = "best"  # or "none", "rank", "tanh"
  config.search.past_scores = 256  # feasible scores remembered
  config.search.warm_start = 3.4  # half the range of the first logits
  config.search.adaptation = ConfigDict()  # of each masked network, before it is scored
  config.search.adaptation.steps = 0  # of SGD; 0: the weights are scored as they are
  config.search.adaptation.batch_size = 64
  config.search.adaptation.learning_rate = 0.05
  config.search.calibration_images = 256  # for batch-norm statistics
  config.search.calibration_batch = 256  # of these images that are normalised together, at most
  config.search.arena_share = 0.25  # of the reward split, to confirm a new incumbent
  config.search.refinement = 192  # masks scored at the end, exchanges around the best one
  config.search.elites = 12  # best feasible masks among the candidates
  config.search.shortlist = 8  # candidates that are fine-tuned
  config.search.chunk = 0  # masks a device scores at once; 0: by network, images and backend
  config.search.policy = ConfigDict()
  config.search.policy.layers = 2  # graph attention
  config.search.policy.heads = 4
  config.search.policy.head_features = 8  # per head
  config.search.policy.edge_norms = True  # does attention see the kernel between two channels?
  config.search.ppo = ConfigDict()
  config.search.ppo.epochs = 4  # passes over each batch
  config.search.ppo.clip = 0.2  # per-channel ratio
  config.search.ppo.kl_stop = 0.1  # mean per channel, nats
  config.search.ppo.entropy_weight = 0.0
  config.search.ppo.learning_rate = 3e-3  # of the network, Adam
  config.search.ppo.embedding_learning_rate = 0.2  # of the per-channel embeddings
  config.search.ppo.max_grad_norm = 1.0
  config.search.dual = ConfigDict()
  config.search.dual.proportional = 0.5  # gain on the violation, in shares of the budget
  config.search.dual.integral = 0.05  # per update
  config.search.dual.maximum = 10.0  # bound of a multiplier
  config.search.critic = ConfigDict()
  config.search.critic.window = 512  # latest scored masks it is fitted to; 0: no critic
  config.search.critic.prior = 0.1  # weight of the channel features in its prior
  config.search.critic.residual_weight = 0.5  # of what it does not explain; 1 is unbiased

  # The same for every method of the final comparison.
  config.finetune = ConfigDict()
  config.finetune.epochs = 40
  config.finetune.batch_size = 64
  config.finetune.learning_rate = 0.05
  config.finetune.warmup_epochs = 1.0
  config.finetune.momentum = 0.9
  config.finetune.weight_decay = 5e-4
  config.finetune.label_smoothing = 0.0
  config.finetune.shift = 1
  config.finetune.flip = False
  config.finetune.crop_area = 1.0
  config.finetune.mixup = 0.0
  config.finetune.average = 0.0
  config.finetune.distillation = 0.9  # weight of imitating the dense network
  config.finetune.temperature = 2.0
  # True: all in one step, compiled once, each as wide as the widest. False: compact networks one
  # after the other, which pays on a CPU where training them takes longer than compiling them.
  config.finetune_side_by_side = True

  config.checkpoints = ConfigDict()  # where an interrupted run goes on
  config.checkpoints.updates = 10  # of a search between two
  config.checkpoints.steps = 200  # gradient steps between two
  config.checkpoints.keep = 3  # of each loop

  # experiments.compare only; it takes these budgets and seeds instead of the ones above.
  config.compare = ConfigDict()
  config.compare.seeds = (0, 1, 2, 3, 4)
  config.compare.budgets = (0.25, 0.12, 0.06)  # of the MACs
  config.compare.variants = ConfigDict({"agent": {}})  # {name: {field of search: other value}}
  config.compare.searches = ("random_ratios", "evolve_ratios", "evolve_bits", "ratio_agent")
  config.compare.finetune = True
  return variants.apply("digits_resnet8", config, variant)
