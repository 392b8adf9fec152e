"""`python -m turpentine`, which launchers of several processes want: the same as `turpentine`."""

import sys

from .pipeline.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
