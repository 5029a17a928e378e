#!/usr/bin/env python
"""Trains the network of ``mmseg-resample demo`` on Shapes, and writes its weights and where they come from.

The tiny network of stride 8, with exact resizes on a covered image (``--policy exact+pad``), one seed. The result is
the same on every machine up to rounding: data and initialisation are seeded. A minute or two on one CPU core.
"""

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.runner import Runner

from mmseg_resample import register
from mmseg_resample.launch import demo
from mmseg_resample.study.records import git_state
from mmseg_resample.version import __version__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000, help="default: 2000, of 8 scenes each")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out-dir", type=Path, default=demo.WEIGHTS.parent, help="default: into the package")
    args = parser.parse_args()
    register()
    torch.set_num_threads(1)
    cfg = demo.config(name=demo.TRAINED)
    n = args.iterations
    cfg.train_cfg.update(max_iters=n, val_interval=n)
    cfg.param_scheduler[-1].end = n
    cfg.default_hooks.checkpoint = None
    del cfg.default_hooks.visualization
    cfg.randomness = dict(seed=args.seed)
    cfg.launcher = "none"
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = Runner.from_cfg(cfg)
        runner.train()
        scores = runner.test()
    weights, provenance = (args.out_dir / path.name for path in (demo.WEIGHTS, demo.PROVENANCE))
    torch.save({key: value.clone() for key, value in runner.model.state_dict().items()}, weights)
    content = {
        "config": demo.TRAINED,
        "policy": demo.POLICY,
        "iterations": n,
        "seed": args.seed,
        "script": "tools/train_demo.py",
        "git": git_state(Path(__file__).parent),
        "versions": {"mmseg_resample": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "test": {name: round(float(value), 2) for name, value in scores.items()},
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    provenance.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{weights}: {weights.stat().st_size} bytes, {content['test']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
