"""What is measured: one module per suite, each with ``TITLE``, ``NOTE`` and ``cases(options)``."""

import mmseg_resample  # noqa: F401  # isort: skip  (first: it makes mmseg importable on mmcv-lite)

from . import loss, models, ops, predict, resamplers, scaling

SUITES = {
    "ops": ops,
    "loss": loss,
    "predict": predict,
    "scaling": scaling,
    "resamplers": resamplers,
    "models": models,
}
