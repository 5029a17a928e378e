#!/usr/bin/env python
"""Run ``mmseg-resample audit``: say which features of a network are misregistered."""

import sys

from mmseg_resample.cli import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
