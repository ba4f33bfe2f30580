"""`python -m fr_ps`, the same as `fr-ps`."""

import sys

from fr_ps.cli import main

sys.exit(main())
