"""`python -m argosy.training.island SPEC.json`."""

import sys

from argosy.training.island.process import main

sys.exit(main(sys.argv[1:]))
