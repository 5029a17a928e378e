#!/usr/bin/env python
"""Run ``mmseg-resample visualize``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["visualize", *sys.argv[1:]]))
