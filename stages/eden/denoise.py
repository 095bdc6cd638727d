"""The stage `denoise`: frame tokens of a window in, the latents of the frames between out."""

from __future__ import annotations

from collections.abc import Mapping

from stages.base import Item, TensorSpec
from stages.eden.denoiser import Denoiser
from stages.eden.layers import Weights
from stages.eden.noise import window_noise
from stages.eden.programs import Tensors
from stages.eden.stage import EdenStage
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
        return self._networks.denoiser(weights, self.architecture)

    def _work_bytes(self, facts: VideoFacts, specs: Mapping[str, TensorSpec]) -> int:
        # Keys and values of every block, what one block has in hand, and the noise.
        blocks = (2 * self.architecture.dit_depth + 5) * specs["tokens_dit"].nbytes
        return blocks + specs["latents"].nbytes

    def _made(self, outputs: Tensors, item: Item[WindowMeta]) -> Tensors:
        pairs, latents, channels = outputs["latents"].shape
        shape = (pairs, latents, channels)
        return {"noise": window_noise(self.facts.job.seed, item.index * pairs, shape)}

    def _compute(self, inputs: Tensors, outputs: Tensors) -> None:
        self.network.denoise(
            inputs["noise"],
            inputs["difference"],
            inputs["tokens_dit"],
            self.grid,
            out=outputs["latents"],
        )
