#!/usr/bin/env python
"""Run ``mmseg-resample test``, also under ``torchrun``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
