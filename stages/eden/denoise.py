"""The stage `denoise`: frame tokens of a window in, the latents of the frames between out."""

from __future__ import annotations

from collections.abc import Mapping

from stages.base import Item, TensorSpec
from stages.eden.denoiser import Denoiser
from stages.eden.layers import Weights
from stages.eden.noise import window_noise
from stages.eden.stage import EdenStage, Tensors
from stages.window import VideoFacts, WindowMeta


class Denoise(EdenStage[Denoiser]):
    """EDEN's diffusion transformer as a stage.

    Reads `tokens_dit` [K + 1, L, C] and `difference` [K, 1]. Writes `latents` [K, Q, latent]
    float32. The noise of a pair depends on the job's seed and the pair's place in the video only.
    """

    reads = ("tokens_dit", "difference")
    writes = ("latents",)
    prefixes = Denoiser.prefixes

    def _build(self, weights: Weights) -> Denoiser:
        return Denoiser(weights, self.architecture)

    def _work_bytes(self, facts: VideoFacts, specs: Mapping[str, TensorSpec]) -> int:
        # Keys and values of every block, and what one block has in hand.
        return (2 * self.architecture.dit_depth + 5) * specs["tokens_dit"].nbytes

    def _compute(self, inputs: Tensors, outputs: Tensors, item: Item[WindowMeta]) -> None:
        pairs, latents, channels = outputs["latents"].shape
        noise = window_noise(self.facts.job.seed, item.index * pairs, (pairs, latents, channels))
        self.network.denoise(
            noise.to(self._device),
            inputs["difference"],
            inputs["tokens_dit"],
            self.grid,
            out=outputs["latents"],
        )
