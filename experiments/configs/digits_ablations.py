"""Ablations: one part of the agent is changed at a time, on digits at a fifth of the MACs.

Reference: the full agent of digits_resnet8.py, which is the first variant. The search "ratio_agent"
  is one more ablation: it learns a ratio for each group and ranks the channels by L1 norm, where
  the agent decides on each channel.
Command: python -m experiments.compare --workdir=/tmp/ablations \\
  --config=experiments/configs/digits_ablations.py
Hardware: one CPU core, seven minutes a seed (there are five, `compare.seeds`).
Numbers: experiments/RESULTS.md, "Ablations".
"""

from ml_collections import ConfigDict

from experiments.configs import digits_resnet8, variants


def get_config(variant: str = "") -> ConfigDict:
  config = digits_resnet8.get_config()
  config.compare.budgets = (0.2,)
  config.compare.finetune = False
  config.compare.searches = ("ratio_agent",)
  config.compare.variants = ConfigDict(
    {
      "agent": {},
      "no message passing": {"policy": {"encoder": "none"}},
      "no critic": {"critic": {"window": 0}},
      "critic, unbiased": {"critic": {"residual_weight": 1.0}},
      "projection": {"constraint": "projection"},
      "layerwise": {"schedule": "layerwise"},
      "dual gains divided by four": {"dual": {"proportional": 0.0625, "integral": 0.00625}},
      "self-competition none": {"self_competition": "none"},
      "self-competition rank": {"self_competition": "rank"},
      "self-competition tanh": {"self_competition": "tanh"},
    }
  )
  return variants.apply("digits_ablations", config, variant)
