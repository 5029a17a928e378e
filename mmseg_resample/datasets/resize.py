"""``AlignedResize``: images and labels on the same grid."""

import numpy as np
from mmseg.datasets.transforms import Resize
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AlignedResize(Resize):
    """mmseg's ``Resize`` whose label maps land where the image does.

    ``Resize`` reads the image at half-pixel centres and labels with OpenCV's nearest, which floors ``x n / N`` instead:
    labels end up half a pixel to the right and below. Here a label is the one at the centre of its pixel
    (``nearest-exact``).

    In place of ``Resize`` it takes the same arguments; ``RandomResize`` and ``RandomChoiceResize`` take it by
    ``resize_type='AlignedResize'``.
    """

    def _resize_seg(self, results: dict) -> None:
        height, width = results["img_shape"][:2]  # of the image, resized before
        for key in results.get("seg_fields", []):
            labels = results[key]
            rows, columns = (
                (2 * np.arange(size) + 1) * n // (2 * size)  # floor((x + 0.5) * n / size), in whole numbers
                for size, n in zip((height, width), labels.shape[:2], strict=True)
            )
            results[key] = labels[rows[:, None], columns]
