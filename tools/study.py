#!/usr/bin/env python
"""Run ``mmseg-resample study``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
