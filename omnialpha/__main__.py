"""`python -m omnialpha`."""

import sys

from .cli import main

sys.exit(main())
