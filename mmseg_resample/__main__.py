"""``python -m mmseg_resample``, the same as the console command ``mmseg-resample``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
