"""``python -m tars_rewards.cli``: the program, where its script is not on the path."""

import sys

from tars_rewards.cli import main

sys.exit(main())
