#!/usr/bin/env python
"""Run ``mmseg-resample convert``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
