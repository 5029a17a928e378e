"""The Triton kernels on machines without a GPU: run by Triton's interpreter, and compiled for GPUs."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

# Older ones, which come with older torch, lack parts of the interpreter.
HAS_TRITON = find_spec("triton") is not None and tuple(map(int, version("triton").split(".")[:2])) >= (3, 6)
pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="Triton 3.6 or later is not installed")


def in_a_process_of_its_own(*command, **environment):
    """Triton decides at import whether it interprets."""
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_cases_by_the_interpreter():
    pytest_ = ("-m", "pytest", "tests/ops/triton_cases.py", "-q", "-n", "0")
    assert " passed" in in_a_process_of_its_own(*pytest_, TRITON_INTERPRET="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cases_on_a_gpu():
    pytest_ = ("-m", "pytest", "tests/ops/triton_cases.py", "-q", "-n", "0")
    assert " passed" in in_a_process_of_its_own(*pytest_, TRITON_INTERPRET="0")


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mmseg_resample.ops import _triton_kernels as kernels

FLAGS = dict(
    CHANNELS=19, ROWS=True, COLUMNS=True, FIRST_ROWS=True, FIRST_COLUMNS=True, TWO=True, SIGMOID=False, THRESHOLD=0.0,
    CONFIDENCE=True, WIDE=False, BLOCK=128, KEPT=0.9, SHARE=0.1 / 19, WEIGHTED=True, SAMPLED=True, LOSSES=True,
    NORMALIZERS=True, TAPS=8,
)

def type_of(name, logits):
    if name in ("logits", "out"):
        return "*" + logits
    if name.endswith("_index") and name != "ignore_index":
        return "*i32"
    if name in ("labels", "target", "float_sums", "counts"):
        return dict(labels="*u8", target="*i64", float_sums="*fp64", counts="*i32")[name]
    floats = ("confidence", "class_weight", "class_sum", "pixel_weight", "losses", "normalizers")
    return "*fp32" if name in floats or name.endswith("_weight") else "i32"

A100, H100, MI300 = GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)
ONES = dict.fromkeys(("width", "blocks", "height", "out_height", "out_width", "pixels", "plane"), 1)
for target, logits, flags in (
    *((target, logits, FLAGS) for target in (A100, H100, MI300) for logits in ("fp32", "bf16")),
    (H100, "fp64", FLAGS | dict(TWO=False, COLUMNS=False, LOSSES=False, SHARE=0.0, WEIGHTED=False, SAMPLED=False)),
    (H100, "fp16", FLAGS | dict(SIGMOID=True, CHANNELS=1, ROWS=False, NORMALIZERS=False, CONFIDENCE=False)),
    (H100, "fp32", FLAGS | ONES),  # Triton makes constants of arguments that are 1
    (H100, "fp32", FLAGS | dict(WIDE=True)),
):
    for name in ("argmax", "cross_entropy", "cross_entropy_gradient"):
        kernel = getattr(kernels, name)
        names = [parameter.name for parameter in kernel.params]
        signature = {n: "constexpr" if n in flags else type_of(n, logits) for n in names}
        constants = {(i,): flags[n] for i, n in enumerate(names) if n in flags}
        binary = triton.compile(ASTSource(fn=kernel, signature=signature, constexprs=constants), target=target)
        code = binary.asm["ptx" if target.backend == "cuda" else "amdgcn"]
        print(target.backend, name, code.count("atom."), code.count("fma"))
"""


@pytest.mark.skipif(torch.__version__ < "2.7", reason="Triton < 3.3 compiles by other arguments")
def test_compiles_for_gpus(tmp_path):
    lines = in_a_process_of_its_own("-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    assert len(lines) == 30
    for line in lines:
        _, _, atomics, multiply_adds = line.split()
        assert int(atomics) == 0
        assert int(multiply_adds) > 0


def test_is_imported_when_asked_for_and_needs_a_gpu():
    program = """
import sys, torch
from mmseg_resample.ops import resize_argmax, resize_cross_entropy
assert "mmseg_resample.ops._triton" not in sys.modules
x = torch.zeros(1, 2, 4, 4)
for op in (
    lambda: resize_argmax(x, 8, backend="triton"),
    lambda: resize_cross_entropy(x, torch.zeros(1, 8, 8).long(), backend="triton"),
):
    try:
        op()
    except ValueError as error:
        assert "backend='triton' expected a tensor on a GPU, got one on cpu" in str(error), error
    else:
        raise AssertionError
"""
    in_a_process_of_its_own("-c", program, TRITON_INTERPRET="0")
