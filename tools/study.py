#!/usr/bin/env python
"""Runs a study and writes its report; see ``mmseg_resample.study.command``."""

import sys

from mmseg_resample.study.command import main

if __name__ == "__main__":
    sys.exit(main())
