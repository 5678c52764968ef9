"""`python -m omnialpha`."""

import sys

from .cli.main import main

sys.exit(main())
