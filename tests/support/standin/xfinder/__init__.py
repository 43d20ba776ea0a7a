"""Stand-in for the PyPI package `xfinder`: the same names and manners, and rules instead of a model."""

import warnings

warnings.filterwarnings("ignore")  # the package does this too
