"""``python -m ncmi``."""

import sys

from ncmi.cli import main

sys.exit(main())
