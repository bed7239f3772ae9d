"""Config files of the experiments."""

DEFAULT = "experiments.configs.digits_resnet8"  # the config where none is given
