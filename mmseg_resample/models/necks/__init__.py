from .resample_fpn import ResampleFPN

__all__ = ["ResampleFPN"]
