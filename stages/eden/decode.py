"""The stage `decode`: latents and frame tokens of a window in, the frames between out."""

from __future__ import annotations

from collections.abc import Mapping

from stages.base import TensorSpec
from stages.eden.decoder import Decoder
from stages.eden.layers import Weights
from stages.eden.programs import Tensors
from stages.eden.specs import rgb_bytes
from stages.eden.stage import EdenStage
from stages.window import VideoFacts


class Decode(EdenStage[Decoder]):
    """EDEN's decoder as a stage.

    Reads `latents` [K, Q, latent], `tokens_dec` [K + 1, L, C] and `stats` [K + 1, 2]. Writes
    `middle` [K, color_bytes] uint8, coded as the source's frames are, without alpha.
    """

    reads = ("latents", "tokens_dec", "stats")
    writes = ("middle",)
    prefixes = Decoder.prefixes

    def _build(self, weights: Weights) -> Decoder:
        return self._networks.decoder(weights, self.architecture)

    def _work_bytes(self, facts: VideoFacts, specs: Mapping[str, TensorSpec]) -> int:
        # Pixels before and after they are put together, and what one block has in hand.
        return 3 * rgb_bytes(facts) + 5 * specs["tokens_dec"].nbytes

    def _compute(self, inputs: Tensors, outputs: Tensors) -> None:
        rgb = self.network.decode(
            inputs["latents"], inputs["tokens_dec"], inputs["stats"], self.grid
        )
        self._networks.rgb_to_planes(rgb, self.facts, out=outputs["middle"])
