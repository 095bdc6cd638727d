"""Video files in and out: frame pairs as windows of planar YUV, and the doubled video back.

Models never import this: they know a video by `stages.window` only.
"""

from stages.video.read import ReadVideo
from stages.video.write import WriteVideo

__all__ = ["ReadVideo", "WriteVideo"]
