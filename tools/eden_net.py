"""EDEN as training sees it: the arithmetic of stages/eden on any batch of pairs, with gradients.

The inference code works on windows of frames, in place. Here the pairs of a batch have nothing in
common, weights are one dictionary under the published names, and matrix products are in bf16 where
asked for. tests/tools/test_train_eden.py holds that both compute the same.

Also here: the encoder of the middle frame, which the tokenizer is trained with and inference has
no use for. It is built like the diffusion transformer: a patch of the middle frame per latent asks
the tokens of the frames around it.

Legend: B pairs, L tokens of a frame, Q latents of a pair, C channels, H heads, S tokens of each
frame that one temporal query sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from stages.eden.architecture import NUM_MODULATIONS, TIMESTEP_FEATURES, Architecture
from stages.eden.denoiser import TIMES
from stages.eden.encoder import NORM_FLOOR, STD_FLOOR
from stages.eden.geometry import Geometry, Grid, make_grid
from stages.eden.layers import LAYER_NORM_EPS, attend, attend_to

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What the encoder says of a batch of pairs."""

    before_dit: torch.Tensor  # [B, L, C]
    after_dit: torch.Tensor
    before_dec: torch.Tensor
    after_dec: torch.Tensor
    mean: torch.Tensor  # [B, 1, 1]
    std: torch.Tensor
    difference: torch.Tensor  # [B, 1]


def linear(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    """Apply a layer in the precision of x."""
    bias = p.get(f"{name}.bias")
    weight = p[f"{name}.weight"].flatten(1).to(x.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def norm(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    """Normalise the channels."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    return F.layer_norm(x, weight.shape, weight, bias, LAYER_NORM_EPS)


def under(p: Tensors, prefix: str) -> Tensors:
    """Return the tensors of one block, without its name."""
    return {name[len(prefix) + 1 :]: p[name] for name in p if name.startswith(f"{prefix}.")}


def temporal(
    p: Tensors, x: torch.Tensor, before: torch.Tensor, after: torch.Tensor, heads: int
) -> torch.Tensor:
    """Return what x [B, N, C] takes of itself and of the tokens [B, N, S, C] at its place."""
    weight = p["temp_attn.qkv.weight"].to(before.dtype)
    own = F.linear(norm(p, "norm_temp_attn", x).to(before.dtype), weight)
    query, key, value = torch.unflatten(own, -1, (3, heads, -1)).unbind(-3)
    around = torch.cat([before, after], 2)
    keys, values = torch.unflatten(
        F.linear(around, weight[x.shape[-1] :]), -1, (2, heads, -1)
    ).unbind(-3)
    to_around = (query[:, :, None].float() * keys.float()).sum(-1)
    to_own = (query.float() * key.float()).sum(-1)[:, :, None]
    scores = torch.cat([to_around, to_own], 2) * query.shape[-1] ** -0.5
    shares = torch.softmax(scores, 2)
    seen = keys.shape[2]
    mixed = shares[:, :, seen, :, None] * value.float()
    mixed = mixed + (shares[:, :, :seen, :, None] * values.float()).sum(2)
    return linear(p, "temp_attn.proj", mixed.flatten(2).to(before.dtype)).to(x.dtype)


def dit_block(
    p: Tensors,
    x: torch.Tensor,
    modulation: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Return x [B, Q, C] after one block; modulation [B, 6, 1, C], frame tokens [B, Q, 4, C]."""
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(1)
    low = before.dtype
    h = norm(p, "norm_self_attn", x) * (1 + scale1) + shift1
    attended = attend(linear(p, "self_attn.qkv", h.to(low)), heads)
    x = x + gate1 * linear(p, "self_attn.proj", attended).to(x.dtype)
    x = x + temporal(p, x, before, after, heads)
    h = norm(p, "norm_mlp", x) * (1 + scale2) + shift2
    return x + gate2 * _mlp(p, h.to(low)).to(x.dtype)


def decoder_block(
    p: Tensors,
    recon: torch.Tensor,
    query: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Return recon [B, L, C] after one block; query [B, Q, C], frame tokens [B, L, 1, C]."""
    low, channels = before.dtype, recon.shape[-1]
    weight = p["self_attn.qkv.weight"].to(low)
    asking = norm(p, "norm_self_attn", recon).to(low)
    everything = torch.cat([asking, norm(p, "norm_self_attn", query).to(low)], 1)
    attended = attend_to(
        F.linear(asking, weight[:channels]), F.linear(everything, weight[channels:]), heads
    )
    recon = recon + linear(p, "self_attn.proj", attended).to(recon.dtype)
    recon = recon + temporal(p, recon, before, after, heads)
    h = norm(p, "norm_mlp", recon).to(low)
    return recon + _mlp(p, h).to(recon.dtype)


def _mlp(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    return linear(p, "mlp.fc2", F.gelu(linear(p, "mlp.fc1", x)))


class Net:
    """The three networks for frames of one size; weights are passed to every call."""

    def __init__(
        self,
        architecture: Architecture,
        height: int,
        width: int,
        device: torch.device,
        *,
        frame: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> None:
        """Make the networks for pictures of this size, which may be crops of a larger `frame`."""
        self.architecture, self._dtype = architecture, dtype
        hidden = architecture.hidden
        whole = Geometry(*(frame or (height, width)), architecture.patch)
        geometry = Geometry(height, width, architecture.patch)
        self._whole = make_grid(whole, hidden, device)
        rows, columns = geometry.block_rows, geometry.block_columns
        self._places = whole.block_rows - rows + 1, whole.block_columns - columns + 1
        self.grid = Grid(
            geometry,
            torch.empty(geometry.num_tokens, hidden, device=device),
            torch.empty(geometry.num_latents, hidden, device=device),
        )
        self.move(0, 0)
        self._enlarge = _enlarger(rows, device), _enlarger(columns, device)
        self._dit_block, self._decoder_block = dit_block, decoder_block
        if compiled:
            self._dit_block = torch.compile(dit_block, dynamic=False)
            self._decoder_block = torch.compile(decoder_block, dynamic=False)

    def move(self, row: int, column: int) -> None:
        """Set where in the frame the crop lies, in latents, modulo the places there are.

        Positions are those of the whole frame: so what is learnt on crops holds there.
        """
        row, column = row % self._places[0], column % self._places[1]
        geometry, whole = self.grid.geometry, self._whole.geometry
        down = slice(row, row + geometry.block_rows)
        across = slice(column, column + geometry.block_columns)
        shape = (whole.block_rows, whole.block_columns, -1)
        latents = self._whole.latents.view(*shape)[down, across]
        tokens = self._whole.tokens.view(*shape)[down, across]
        self.grid.latents.copy_(latents.reshape(self.grid.latents.shape))
        self.grid.tokens.copy_(tokens.reshape(self.grid.tokens.shape))

    def encode(self, p: Tensors, before: torch.Tensor, after: torch.Tensor) -> Pairs:
        """Return what is known of the frames [B, 3, height, width], float32 in [0, 1]."""
        cosines = F.cosine_similarity(before, after, dim=1, eps=NORM_FLOOR).mean((1, 2))
        constants = self.architecture.constants
        difference = (cosines - constants.cos_sim_mean)[:, None] / constants.cos_sim_std
        patches = self.patches(torch.cat([before, after]))
        mean = patches.mean((1, 2), keepdim=True)
        std = patches.std((1, 2), keepdim=True) + STD_FLOOR
        patches = (patches - mean) / std
        dit = self._tokens(p, "dit", patches).chunk(2)
        dec = self._tokens(p, "dec", patches).chunk(2)
        half = before.shape[0]
        mean, std = (mean[:half] + mean[half:]) / 2, (std[:half] + std[half:]) / 2
        return Pairs(*dit, *dec, mean, std, difference)

    def patches(self, frames: torch.Tensor) -> torch.Tensor:
        """Return [N, L, pixels of a patch]."""
        return self.grid.geometry.patches(self.grid.geometry.pad(frames))

    def _tokens(self, p: Tensors, kind: str, patches: torch.Tensor) -> torch.Tensor:
        x = linear(p, f"patch_cond_{kind}", patches.to(self._dtype)).float() + self.grid.tokens
        return norm(p, f"norm_cond_{kind}", x).to(self._dtype)

    def velocity(
        self, p: Tensors, latents: torch.Tensor, times: torch.Tensor, pairs: Pairs
    ) -> torch.Tensor:
        """Return where the latents [B, Q, latent] at the times [B] are to go."""
        modulation = self._modulation(p, times, pairs.difference)
        x = linear(p, "proj_in", latents) + self.grid.latents
        x = self._blocks(p, "dit_blocks", x, modulation, pairs.before_dit, pairs.after_dit)
        out = linear(p, "proj_out", norm(p, "norm_out", x).to(self._dtype))
        return out[..., : self.architecture.latent].float()

    def _blocks(
        self,
        p: Tensors,
        stack: str,
        x: torch.Tensor,
        modulation: torch.Tensor,
        before: torch.Tensor,
        after: torch.Tensor,
    ) -> torch.Tensor:
        below = torch.unflatten(before, 1, (-1, 4)), torch.unflatten(after, 1, (-1, 4))
        for i in range(self.architecture.dit_depth):
            if not (block := under(p, f"{stack}.{i}")):
                break  # the encoder of the middle frame may have fewer
            x = self._dit_block(block, x, modulation, *below, self.architecture.num_heads)
        return x

    def _modulation(
        self, p: Tensors, times: torch.Tensor, difference: torch.Tensor
    ) -> torch.Tensor:
        half = TIMESTEP_FEATURES // 2
        rates = torch.exp(torch.arange(half, device=times.device) * (-math.log(10000.0) / half))
        angles = times[:, None] * rates
        features = torch.cat([angles.cos(), angles.sin()], 1)
        embedder = "denoise_timestep_embedder.mlp"
        condition = linear(p, f"{embedder}.2", F.silu(linear(p, f"{embedder}.0", features)))
        condition = condition + linear(p, "difference_embedder", difference)
        parts = linear(p, "adaLN_modulation.1", F.silu(condition))
        return torch.unflatten(parts, -1, (NUM_MODULATIONS, 1, -1))

    def sample(self, p: Tensors, noise: torch.Tensor, pairs: Pairs) -> torch.Tensor:
        """Return the latents [B, Q, latent] that inference gets of this noise, in its two steps."""
        latents = noise
        for now, then in pairwise(TIMES):
            times = torch.full((noise.shape[0],), now, device=noise.device)
            latents = latents + (then - now) * self.velocity(p, latents, times, pairs)
        return latents

    def decode(self, p: Tensors, latents: torch.Tensor, pairs: Pairs) -> torch.Tensor:
        """Return the frames between [B, 3, height, width], not clamped."""
        constants, grid = self.architecture.constants, self.grid
        latents = latents / constants.vae_scaler + constants.vae_shift
        recon = linear(p, "proj_token", self._upsample(latents)) + grid.tokens
        query = linear(p, "proj_token", latents) + grid.latents
        around = pairs.before_dec[:, :, None], pairs.after_dec[:, :, None]
        for i in range(self.architecture.decoder_depth):
            block = under(p, f"decoder_blocks.{i}")
            recon = self._decoder_block(block, recon, query, *around, self.architecture.num_heads)
        wide = linear(p, "unpatchify.1", norm(p, "unpatchify.0", recon).to(self._dtype))
        pixels = linear(p, "unpatchify.3", F.gelu(wide)).float()
        return grid.geometry.crop(grid.geometry.unpatch(pixels * pairs.std + pairs.mean))

    def _upsample(self, latents: torch.Tensor) -> torch.Tensor:
        """As `Geometry.upsample`, in two matrix products: torch's kernel is slow backwards."""
        geometry = self.grid.geometry
        shape = (geometry.block_rows, geometry.block_columns)
        plane = torch.unflatten(latents.transpose(1, 2), 2, shape)
        large = self._enlarge[0] @ plane @ self._enlarge[1].mT
        blocks = torch.unflatten(large, 3, (geometry.block_columns, 2))
        blocks = torch.unflatten(blocks, 2, (geometry.block_rows, 2))
        return blocks.permute(0, 2, 4, 3, 5, 1).reshape(len(latents), geometry.num_tokens, -1)

    def tokenize(
        self, p: Tensors, middle: torch.Tensor, pairs: Pairs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance [B, Q, latent] of what the latents of `middle` may be.

        These are the decoder's own, before `vae_shift` and `vae_scaler`.
        """
        patches = (self.patches(middle) - pairs.mean) / pairs.std
        under_latents = torch.unflatten(patches, 1, (-1, 4)).flatten(2).to(self._dtype)
        x = linear(p, "patch_middle", under_latents).float() + self.grid.latents
        plain = torch.zeros(1, NUM_MODULATIONS, 1, 1, device=x.device)
        plain[:, 2::3] = 1.0
        x = self._blocks(p, "encoder_blocks", x, plain, pairs.before_dec, pairs.after_dec)
        both = linear(p, "to_latent", norm(p, "norm_latent", x))
        mean, log_variance = both.chunk(2, -1)
        return mean, log_variance.clamp(-20, 5)


def _enlarger(count: int, device: torch.device) -> torch.Tensor:
    """Return the matrix [2 * count, count] of bicubic x2 enlargement along one side."""
    one = torch.eye(count, device=device).view(1, count, count, 1)
    sides = F.interpolate(one, (2 * count, 1), mode="bicubic", align_corners=False)
    return sides[0, :, :, 0].mT.contiguous()
