"""Where pixels, tokens and latents of one frame size lie, and how one becomes the other.

Tokens are kept in block order: the four tokens under one latent are neighbours, that is a token
has the index (row / 2, column / 2, row % 2, column % 2). So the keys and values that a latent
sees are contiguous. Only positions, up-sampling and the way to and from pixels care.
Legend: N frames or pairs, L tokens of a frame, C channels, P pixels of a patch's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Geometry:
    """A frame of `height` x `width` pixels, padded to whole 2 x 2 blocks of patches."""

    height: int
    width: int
    patch: int

    @property
    def block_rows(self) -> int:
        """Rows of latents."""
        return -(-self.height // (2 * self.patch))

    @property
    def block_columns(self) -> int:
        """Columns of latents."""
        return -(-self.width // (2 * self.patch))

    @property
    def num_latents(self) -> int:
        """Latents of a frame pair."""
        return self.block_rows * self.block_columns

    @property
    def num_tokens(self) -> int:
        """Tokens of a frame."""
        return 4 * self.num_latents

    @property
    def padded_size(self) -> tuple[int, int]:
        """Rows and columns of a padded frame."""
        return 2 * self.patch * self.block_rows, 2 * self.patch * self.block_columns

    @property
    def margin(self) -> tuple[int, int]:
        """Columns to the left and rows on top of a frame that padding adds."""
        left, _, top, _ = self._margins
        return left, top

    @property
    def _margins(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom; an odd pixel goes right and bottom."""
        across = 2 * self.patch * self.block_columns - self.width
        down = 2 * self.patch * self.block_rows - self.height
        return across // 2, across - across // 2, down // 2, down - down // 2

    def pad(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return [N, 3, height, width] with its edges repeated to whole blocks."""
        return F.pad(rgb, self._margins, mode="replicate")

    def crop(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return the view of the padded [N, 3, H, W] that `pad` was given."""
        left, _, top, _ = self._margins
        return rgb[..., top : top + self.height, left : left + self.width]

    def patches(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return [N, L, 3 * P * P] of the padded [N, 3, H, W]; (channel, row, column) inside."""
        patch = self.patch
        blocks = torch.unflatten(rgb, 3, (self.block_columns, 2, patch))
        blocks = torch.unflatten(blocks, 2, (self.block_rows, 2, patch))
        order = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)
        return order.reshape(rgb.shape[0], self.num_tokens, 3 * patch * patch)

    def unpatch(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the padded [N, 3, H, W] of [N, L, P * P * 3]; (row, column, channel) inside."""
        patch = self.patch
        blocks = tokens.view(
            -1, self.block_rows, self.block_columns, 2, 2, patch, patch, 3
        ).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return blocks.reshape(-1, 3, 2 * patch * self.block_rows, 2 * patch * self.block_columns)

    def upsample(self, latents: torch.Tensor) -> torch.Tensor:
        """Return [N, L, channels], the bicubic x2 enlargement of [N, L / 4, channels]."""
        plane = latents.transpose(1, 2)
        plane = torch.unflatten(plane, 2, (self.block_rows, self.block_columns))
        large = F.interpolate(plane, scale_factor=2, mode="bicubic", align_corners=False)
        blocks = torch.unflatten(large, 3, (self.block_columns, 2))
        blocks = torch.unflatten(blocks, 2, (self.block_rows, 2))
        return blocks.permute(0, 2, 4, 3, 5, 1).reshape(
            latents.shape[0], self.num_tokens, latents.shape[2]
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """A geometry and its position tables, float32 on the device of the model."""

    geometry: Geometry
    tokens: torch.Tensor  # [L, C]
    latents: torch.Tensor  # [L / 4, C]


def make_grid(geometry: Geometry, hidden: int, device: torch.device) -> Grid:
    """Return the grid of `geometry` for a model of `hidden` channels."""
    rows, columns = 2 * geometry.block_rows, 2 * geometry.block_columns
    row_step, column_step = 16 / rows, 28 / columns  # of the full grid, also for the latents
    tokens = _positions(rows, columns, row_step, column_step, hidden)
    blocks = tokens.view(rows // 2, 2, columns // 2, 2, hidden).transpose(1, 2)
    latents = _positions(rows // 2, columns // 2, row_step, column_step, hidden)
    return Grid(
        geometry,
        blocks.reshape(-1, hidden).to(device),
        latents.reshape(-1, hidden).to(device),
    )


def _positions(
    rows: int, columns: int, row_step: float, column_step: float, hidden: int
) -> torch.Tensor:
    """Return [rows, columns, hidden]: first half of the channels the column, then the row."""
    down = _waves(rows, row_step, hidden)[:, None].expand(-1, columns, -1)
    across = _waves(columns, column_step, hidden)[None].expand(rows, -1, -1)
    return torch.cat([across, down], -1).float()


def _waves(count: int, step: float, hidden: int) -> torch.Tensor:
    quarter = hidden // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * step * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
