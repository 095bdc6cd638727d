"""EDEN frame interpolation as three stages: encode, denoise, decode.

Two neighbouring frames in, the frame half-way between them out. `stages.eden.model` has the
same model as one call on RGB tensors.

Source: Zhang et al., EDEN, CVPR 2025, arXiv:2503.15831.
"""

from stages.eden.decode import Decode
from stages.eden.denoise import Denoise
from stages.eden.encode import Encode

__all__ = ["Decode", "Denoise", "Encode"]
