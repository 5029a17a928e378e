from .sfnet_head import SFNetHead

__all__ = ["SFNetHead"]
