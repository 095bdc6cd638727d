"""One phase of the training of EDEN at work: what is rendered, computed and changed every step.

    tokenizer   encoder of the middle frame and decoder: reconstruction, and latents kept small
    velocity    diffusion transformer on the tokenizer's latents, along a straight path from noise
    sampler     all of inference at once, noise, two steps, decoder: the loss is of pictures

Legend: B triplets, Q latents of a triplet.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from stages.eden.architecture import Architecture, Constants
from stages.eden.denoiser import TIMES
from tools.eden_data import Paint, Renderer
from tools.eden_net import Net, Pairs, Tensors
from tools.eden_optim import Average, Optimizer, Step, gain_over_average, picture_loss
from tools.eden_textures import Dice

DECODER = ("patch_cond_dec", "norm_cond_dec", "proj_token", "decoder_blocks", "unpatchify")
DENOISER = (
    *("patch_cond_dit", "norm_cond_dit", "proj_in", "dit_blocks", "norm_out", "proj_out"),
    *("adaLN_modulation", "difference_embedder", "denoise_timestep_embedder"),
)
ENCODER = ("patch_middle", "encoder_blocks", "norm_latent", "to_latent")
# The first parts of the names of what each kind of phase changes.
CHANGES = {
    "tokenizer": DECODER + ENCODER,
    "velocity": DENOISER,
    "sampler": DECODER + DENOISER,
}
MEASURED_BATCHES = 8


class Lesson:
    """The networks, scenes and optimizer of one phase."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        plan: Mapping[str, Any],
        architecture: Architecture,
        weights: Tensors,
        paint: Paint,
        generator: torch.Generator,
    ) -> None:
        """Make them.

        Args:
            settings: of the phase.
            plan: the whole of it.
            architecture: with the constants as they are known so far.
            weights: all of them; those that the phase changes become leaves with gradients.
            paint: what scenes are painted with.
            generator: of everything that a step draws at random.
        """
        self._settings, self._plan, self._weights = settings, plan, weights
        self._dice, self._paint = Dice(generator), paint
        self.architecture = architecture
        names = tuple(f"{name}." for name in CHANGES[settings["train"]])
        chosen = {n: w.requires_grad_(True) for n, w in weights.items() if n.startswith(names)}
        on_gpu = generator.device.type == "cuda"
        self._optimizer = Optimizer(chosen, weight_decay=plan["weight_decay"], is_captured=on_gpu)
        self.average = Average(chosen, plan["average"])
        self.loss, self.gain = torch.zeros(2, device=generator.device).unbind()
        self._turn, self._places = 0, random.Random(generator.initial_seed())
        self._views = [self._view(**size) for size in settings["sizes"]]
        self._steps = [
            Step(partial(self._compute, net, renderer), generator) for net, renderer in self._views
        ]

    def _view(self, crop: list[int], frame: list[int]) -> tuple[Net, Renderer]:
        device = self._dice.device
        on_gpu = device.type == "cuda"
        net = Net(
            self.architecture,
            *crop,
            device,
            frame=(frame[0], frame[1]),
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            compiled=on_gpu,
        )
        return net, Renderer(self._paint, self._dice, *crop, frame_width=frame[1])

    def step(self, rate: float) -> None:
        """Train on one more batch; `loss` and `gain` are those of it."""
        self._turn += 1
        count, every = self._plan["data"]["refresh"]
        if self._turn % every == 0:
            self._paint.refresh(count)
        which = self._turn % len(self._views)
        self._views[which][0].move(self._places.randrange(1000), self._places.randrange(1000))
        self._optimizer.rate.fill_(rate)
        self._steps[which]()
        self.average.update()

    def _compute(self, net: Net, renderer: Renderer) -> None:
        with torch.no_grad():
            pictures = renderer.render(self._settings["batch"])
        pairs = net.encode(self._weights, pictures[0], pictures[2])
        match self._settings["train"]:
            case "tokenizer":
                loss = self._reconstruct(net, pictures, pairs)
            case "velocity":
                loss = self._follow(net, pictures[1], pairs)
            case _:
                loss = self._sample(net, pictures, pairs)
        loss.backward()
        self._optimizer.step()
        self.loss.copy_(loss.detach())

    def _compare(self, shown: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        self.gain.copy_(gain_over_average(shown, pictures))
        return picture_loss(shown, pictures[1], self._settings["loss"])

    def _reconstruct(self, net: Net, pictures: torch.Tensor, pairs: Pairs) -> torch.Tensor:
        mean, log_variance = net.tokenize(self._weights, pictures[1], pairs)
        drawn = mean + self._dice.normal(*mean.shape) * torch.exp(log_variance / 2)
        shown = net.decode(self._weights, drawn, pairs)  # the constants leave them as they are yet
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return self._compare(shown, pictures) + self._settings["kl"] * divergence

    def _follow(self, net: Net, middle: torch.Tensor, pairs: Pairs) -> torch.Tensor:
        constants = self.architecture.constants
        with torch.no_grad():
            mean, log_variance = net.tokenize(self._weights, middle, pairs)
            drawn = mean + self._dice.normal(*mean.shape) * torch.exp(log_variance / 2)
            latents = (drawn - constants.vae_shift) * constants.vae_scaler
        n = len(middle)
        asked = TIMES[1] * self._dice.chance(0.5, n)  # half of them as inference asks
        times = torch.where(self._dice.chance(0.5, n) > 0, asked, self._dice.uniform(n))
        noise = self._noise(net, n)
        path = latents - noise
        velocity = net.velocity(self._weights, noise + times[:, None, None] * path, times, pairs)
        return (velocity - path).square().mean()

    def _sample(self, net: Net, pictures: torch.Tensor, pairs: Pairs) -> torch.Tensor:
        noise = self._noise(net, pictures.shape[1])
        latents = net.sample(self._weights, noise, pairs)
        return self._compare(net.decode(self._weights, latents, pairs), pictures)

    def _noise(self, net: Net, n: int) -> torch.Tensor:
        return self._dice.normal(n, net.grid.geometry.num_latents, self.architecture.latent)

    @torch.no_grad()
    def measure_latents(self) -> Constants:
        """Return the constants that bring the tokenizer's latents to mean 0 and spread 1."""
        net, renderer = self._views[0]
        found = []
        for _ in range(MEASURED_BATCHES):
            before, middle, after = renderer.render(self._settings["batch"])
            pairs = net.encode(self._weights, before, after)
            mean, log_variance = net.tokenize(self._weights, middle, pairs)
            found.append(mean + self._dice.normal(*mean.shape) * torch.exp(log_variance / 2))
        latents = torch.cat(found)
        return replace(
            self.architecture.constants,
            vae_scaler=1 / float(latents.std()),
            vae_shift=float(latents.mean()),
        )

    @torch.no_grad()
    def measure_difference(self) -> Constants:
        """Return the constants that bring `difference` to mean 0 and spread 1 on these scenes."""
        found = []
        for _ in range(MEASURED_BATCHES):
            before, _, after = self._views[0][1].render(self._settings["batch"])
            found.append(torch.cosine_similarity(before, after, dim=1).mean((1, 2)))
        cosines = torch.cat(found)
        return replace(
            self.architecture.constants,
            cos_sim_mean=float(cosines.mean()),
            cos_sim_std=float(cosines.std()),
        )
