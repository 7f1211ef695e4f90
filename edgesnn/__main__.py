"""`python -m edgesnn` is `edgesnn`."""

import os
import sys

from edgesnn.cli import main

code = main()
if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
    # One of several processes: torch's threads can abort it on the way out while another still works.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
