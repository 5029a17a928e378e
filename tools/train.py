#!/usr/bin/env python
"""Run ``mmseg-resample train``, also under ``torchrun``."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
