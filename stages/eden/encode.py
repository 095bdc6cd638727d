"""The stage `encode`: frames of a window in, tokens, statistics and differences out."""

from __future__ import annotations

from collections.abc import Mapping

from stages.base import TensorSpec
from stages.eden.encoder import Encoded, Encoder
from stages.eden.layers import Weights
from stages.eden.programs import Tensors
from stages.eden.specs import rgb_bytes
from stages.eden.stage import EdenStage
from stages.window import VideoFacts


class Encode(EdenStage[Encoder]):
    """EDEN's encoder as a stage.

    Reads `frames` [K + 1, frame_bytes] uint8. Writes `tokens_dit` and `tokens_dec` [K + 1, L, C]
    of the model's dtype, `stats` [K + 1, 2] float32 (mean and std of each padded frame) and
    `difference` [K, 1] float32.
    """

    reads = ("frames",)
    writes = ("tokens_dit", "tokens_dec", "stats", "difference")
    prefixes = Encoder.prefixes

    def _build(self, weights: Weights) -> Encoder:
        return self._networks.encoder(weights, self.architecture)

    def _work_bytes(self, facts: VideoFacts, specs: Mapping[str, TensorSpec]) -> int:
        return 5 * rgb_bytes(facts)  # conversion, patches and their normalisation

    def _compute(self, inputs: Tensors, outputs: Tensors) -> None:
        rgb = self._networks.planes_to_rgb(inputs["frames"], self.facts)
        self.network.encode(rgb, self.grid, out=Encoded(**outputs))
