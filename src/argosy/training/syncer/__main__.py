"""`python -m argosy.training.syncer SPEC.json`."""

import sys

from argosy.training.syncer.process import main

sys.exit(main(sys.argv[1:]))
