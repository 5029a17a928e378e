"""The tiny study, as files and as an undisturbed execution."""

import functools
import gc

import pytest

from mmseg_resample.study import execution, loading

from .tiny import write_study as write


@pytest.fixture(autouse=True, scope="session")
def _fast_garbage_collection():
    gc.freeze()  # as a worker does: runs collect garbage, and need not look at all of torch and mmseg again


@pytest.fixture
def write_study(tmp_path):
    """``tiny.write_study`` into the directory of the test."""
    return functools.partial(write, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The study, the directory it was executed in by two workers, and what happened."""
    directory = tmp_path_factory.mktemp("undisturbed")
    study = loading.load(write(directory))
    root = directory / "runs"
    return study, root, list(execution.execute(study, root, workers=2))
