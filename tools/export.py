#!/usr/bin/env python
"""Run ``mmseg-resample export``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
