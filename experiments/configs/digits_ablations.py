"""One part of the agent changed at a time, on the digits problem at a fifth of the MACs.

Reference: the full agent of digits_resnet8.py, which the first variant is. Binary actions against
  ratios with L1 is "agent" against "ratio_agent".
Command: python -m experiments.compare --workdir=/tmp/ablations \\
  --config=experiments/configs/digits_ablations.py
Hardware: one CPU core, seven minutes a seed (`compare.seeds`, five).
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
      "dual gains times four": {"dual": {"proportional": 2.0, "integral": 0.2}},
      "self-competition none": {"self_competition": "none"},
      "self-competition rank": {"self_competition": "rank"},
      "self-competition tanh": {"self_competition": "tanh"},
    }
  )
  return variants.apply("digits_ablations", config, variant)
