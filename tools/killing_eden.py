"""EDEN's stages as the kill matrix runs them: as they are, but for what is ordered."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, ClassVar

import torch

from stages.base import Item
from stages.eden import decode, denoise, encode
from stages.eden.programs import Tensors
from stages.eden.stage import EdenStage
from stages.window import WindowMeta
from tools.kill_order import Killer


class _Killed(EdenStage[Any]):
    """Mixed into one of EDEN's stages."""

    killed_as: ClassVar[str]

    @cached_property
    def killer(self) -> Killer:
        """Made when the stage is loaded, in its worker."""
        return Killer(self.killed_as)

    def load(self, device: str) -> None:
        """Read the weights."""
        self.killer.load()
        super().load(device)

    def run(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> WindowMeta:
        """Run a window."""
        self.killer.before(item.index)
        meta = super().run(inputs, outputs, item)
        self.killer.after(item.index)
        return meta


class Encode(_Killed, encode.Encode):
    """Encode that may be killed."""

    killed_as = "encode"


class Denoise(_Killed, denoise.Denoise):
    """Denoise that may be killed."""

    killed_as = "denoise"


class Decode(_Killed, decode.Decode):
    """Decode that may be killed."""

    killed_as = "decode"


class DecodeByAttempt(Decode):
    """A decoder with a fault: an item that is run again comes out a little otherwise."""

    def run(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> WindowMeta:
        """Run a window; if it is not for the first time, change one row of the picture."""
        meta = super().run(inputs, outputs, item)
        if item.attempt:
            digest = hashlib.sha256(str(item.attempt).encode()).digest()
            outputs["middle"][0, : len(digest)] = torch.tensor(list(digest), dtype=torch.uint8)
        return meta
