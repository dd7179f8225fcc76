"""`python -m segue`."""

import sys

from .cli.main import main

sys.exit(main())
