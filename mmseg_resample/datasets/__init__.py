"""Data sets: CamVid, and Shapes, which needs no files."""

from .cache import CachedLoading
from .camvid import CamVidDataset, convert_camvid, shrink_camvid
from .resize import AlignedResize
from .shapes import LoadShapes, ShapesDataset, ShapesScene

__all__ = [
    "AlignedResize",
    "CachedLoading",
    "CamVidDataset",
    "LoadShapes",
    "ShapesDataset",
    "ShapesScene",
    "convert_camvid",
    "shrink_camvid",
]
