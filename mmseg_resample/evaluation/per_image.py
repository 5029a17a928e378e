"""The base of the metrics: counts of every image, kept apart until the end."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable
from torch import Tensor

from ..files import atomic_write


class PerImageMetric(BaseMetric):
    """Base of metrics that are functions of counts which add up over images.

    The counts of an image do not depend on other images, so a data set can be resampled afterwards: add up the counts
    of the images drawn and reduce them again. Several ranks give what one gives.

    Subclasses define ``count``, ``summarize`` and, for what ``out_file`` should hold beside the counts, ``arrays`` and
    ``totals``.

    Args:
        ignore_index: label of the pixels that do not count.
        out_file: ``.npz`` to write: what ``arrays`` returns, first dimension = images, and what ``totals`` does;
            ``images`` (num_images,) file names, or positions where a sample has none; ``classes`` (C,). A relative path
            begins at the work directory of the run, or where the process was started if there is no run.
        collect_device, prefix, collect_dir: as in every mmengine metric.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if out_file is not None and not str(out_file).endswith(".npz"):
            raise ValueError(f"{type(self).__name__}: expected out_file to end with .npz, got {str(out_file)!r}.")
        self.ignore_index = ignore_index
        self.out_file = out_file

    def count(self, pred: Tensor, label: Tensor) -> Mapping[str, Tensor]:
        """Return the counts of one image, (h, w) maps on one device; the same names and shapes for every image."""
        raise NotImplementedError

    def arrays(self, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what ``out_file`` holds and ``summarize`` gets; ``counts`` are stacked, first dimension = images."""
        return counts

    def totals(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what ``out_file`` holds of all images together, for readers that want nothing else."""
        return {}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the values of the metric."""
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count one batch; ``data_samples`` hold ``pred_sem_seg`` and ``gt_sem_seg`` as mmseg's models return them."""
        for sample in data_samples:
            image = Path(sample.get("img_path") or "").name
            try:
                pred = _map(sample["pred_sem_seg"]["data"])
                label = _map(sample["gt_sem_seg"]["data"]).to(pred.device)
                result: dict[str, Any] = {"image": image, **self.count(pred, label)}
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}: image {image!r}: {error}") from error
            if all(result[name].device.type == "cpu" for name in result.keys() - {"image"}):
                self._check(result)
            self.results.append(result)

    def evaluate(self, size: int) -> dict:
        """Gather the images of all ranks; ``size`` is the length of the data set."""
        if self.results:
            for name in self.results[0].keys() - {"image"}:
                # One transfer for all images: on a GPU `process` never waits for the device.
                counts = torch.stack([result[name] for result in self.results]).cpu()
                for result, value in zip(self.results, counts, strict=True):
                    result[name] = value
            for result in self.results:
                self._check(result)
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Reduce the per-image results; write ``out_file``."""
        names = [name for name in results[0] if name != "image"]
        arrays = self.arrays({name: torch.stack([result[name] for result in results]).numpy() for name in names})
        if self.out_file is not None:
            images = [result["image"] or str(position) for position, result in enumerate(results)]
            beside = dict(images=np.array(images), classes=np.array(self.classes), **self.totals(arrays))
            _write(work_dir() / self.out_file, **arrays, **beside)
        return self.summarize(arrays)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, from the data set."""
        return tuple((self.dataset_meta or {})["classes"])

    def _check(self, result: dict) -> None:
        """Raise if the counts of an image, on the CPU, are not valid."""


def work_dir() -> Path:
    """Return the work directory of the runner that was built last, which holds its log; without one the current one.

    A metric is not told its runner. Its tables go to the log of this one, too.
    """
    log = getattr(MMLogger.get_current_instance(), "log_file", None)
    if log is None:
        return Path()
    folder = Path(log).parent  # the runner's log is <work_dir>/<timestamp>/<timestamp>.log, or ..._<host and rank>.log
    return folder.parent if Path(log).stem.startswith(folder.name) else folder


def _map(data: Tensor) -> Tensor:
    """Return a map (1, h, w) or (h, w) as (h, w), of integers if it has whole numbers, as of mmseg's one channel."""
    if data.ndim == 3:
        data = data.squeeze(0)
    if not data.is_floating_point():
        return data
    whole = data.frac() == 0
    if not whole.all():
        raise ValueError(
            f"expected predicted classes, got {float(data[~whole][0]):g}. Give the labels of one channel, "
            f"(probability > threshold), as mmseg's segmentors do."
        )
    return data.long()


def log_table(title: str, columns: Mapping[str, Sequence]) -> None:
    """Log a table as mmseg logs its own."""
    table = PrettyTable()
    for name, values in columns.items():
        table.add_column(name, list(values))
    print_log(f"{title}:\n{table.get_string()}", logger=MMLogger.get_current_instance())


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """Return the quotient in float64, NaN for 0 / 0, without a warning."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(numerator, denominator, dtype=np.float64)


def nanmean(values: np.ndarray) -> float:
    """Return the mean of all values that are not NaN; NaN, without a warning, where there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


class DamagedCounts(ValueError):
    """Error of an ``out_file`` that cannot be read, or lacks an array."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason})")
        self.path, self.reason = path, reason


def read_counts(path: str | PathLike[str], *names: str) -> list[np.ndarray]:
    """Read arrays of an ``out_file``.

    Raises:
        DamagedCounts: it was cut or changed.
        FileNotFoundError: it is not there.
    """
    try:
        with np.load(path) as stored:
            return [stored[name] for name in names]
    except FileNotFoundError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, EOFError, KeyError, ...: whatever damage makes NumPy raise
        raise DamagedCounts(Path(path), f"{type(error).__name__}: {error}") from error


def _write(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
