"""How the training changes weights: first values, Muon beside AdamW, averages, losses."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F

from stages.eden.architecture import Architecture
from tools.eden_net import Tensors

MOMENTUM = 0.95
# The polynomial whose repetition drives singular values towards 1 (Keller Jordan et al., Muon).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
EAGER_CALLS = 3  # before a CUDA graph is captured
UPDATE_SIZE = 0.2  # of an entry, what AdamW's updates have, so that one rate serves both


def encoder_shapes(architecture: Architecture, depth: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of the encoder of the middle frame."""
    hidden, latent = architecture.hidden, architecture.latent
    pixels = 4 * 3 * architecture.patch**2
    shapes: dict[str, tuple[int, ...]] = {
        "patch_middle.weight": (hidden, pixels),
        "patch_middle.bias": (hidden,),
        "norm_latent.weight": (hidden,),
        "norm_latent.bias": (hidden,),
        "to_latent.weight": (2 * latent, hidden),
        "to_latent.bias": (2 * latent,),
    }
    for name, shape in architecture.shapes().items():
        stack, _, rest = name.partition(".")
        if stack == "dit_blocks" and int(rest.partition(".")[0]) < depth:
            shapes[f"encoder_blocks.{rest}"] = shape
    return shapes


def first_values(shapes: dict[str, tuple[int, ...]], depth: int, seed: int) -> Tensors:
    """Return weights to begin with, float32 on the CPU: every block's gates open, norms plain."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        value = torch.zeros(shape)
        if name.endswith(".weight") and len(shape) == 1:
            value.fill_(1.0)
        elif name.endswith(".weight"):
            value.normal_(0, _spread(name, shape, depth), generator=generator)
        elif name == "adaLN_modulation.1.bias":
            value.view(2, 3, -1)[:, 2] = 1.0
        made[name] = value
    return made


def _spread(name: str, shape: tuple[int, ...], depth: int) -> float:
    plain = float(prod(shape[1:])) ** -0.5
    if name.endswith(("attn.proj.weight", "fc2.weight")):
        return plain * (2 * depth) ** -0.5  # the sum over all blocks keeps its size
    if name.startswith(("adaLN_modulation", "proj_out", "to_latent", "difference_embedder")):
        return 0.1 * plain
    return plain


class Optimizer:
    """Muon for the matrices of the blocks, AdamW for the rest, with one learning rate."""

    def __init__(self, weights: Tensors, *, weight_decay: float, is_captured: bool) -> None:
        self._weights = list(weights.values())
        self._decay = weight_decay
        groups: dict[tuple[int, ...], list[torch.Tensor]] = {}
        rest = []
        for name, weight in weights.items():
            if "blocks." in name and weight.ndim == 2:
                groups.setdefault(tuple(weight.shape), []).append(weight)
            else:
                rest.append(weight)
        self._matrices = list(groups.values())
        self._momenta = [[torch.zeros_like(w) for w in group] for group in self._matrices]
        # On the device, so that a CUDA graph of a step can be told another one.
        self.rate = torch.zeros((), device=rest[0].device)
        self._adam = torch.optim.AdamW(
            rest,
            lr=self.rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
            capturable=is_captured,
        )

    def step(self) -> None:
        """Change the weights by their gradients, which are cleared."""
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._adam.step()
        for matrices, momenta in zip(self._matrices, self._momenta, strict=True):
            self._step_matrices(matrices, momenta)
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def _step_matrices(self, matrices: list[torch.Tensor], momenta: list[torch.Tensor]) -> None:
        gradients = [matrix.grad for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM))
        rows, columns = ahead.shape[1:]
        parts = 3 if rows == 3 * columns else 1  # query, key and value are matrices of their own
        ahead = ahead.view(-1, rows // parts, columns)
        size = UPDATE_SIZE * max(ahead.shape[1:]) ** 0.5
        updates = orthogonal(ahead).view(-1, rows, columns).float() * (self.rate * size)
        torch._foreach_mul_(matrices, 1 - self.rate * self._decay)
        torch._foreach_sub_(matrices, list(updates.unbind()))


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices [N, rows, columns] with the same singular vectors, all values about 1."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    x = x.bfloat16() if x.is_cuda else x
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Step:
    """A function of nothing that is called again and again: on a GPU as one CUDA graph.

    A step is a thousand small kernels, which a host cannot launch as fast as an H200 runs them.
    """

    def __init__(self, function: Callable[[], None], generator: torch.Generator) -> None:
        self._function, self._generator = function, generator
        self._on_gpu = generator.device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self) -> None:
        """Call the function; the first times really, which compiles it and makes its buffers."""
        self._calls += 1
        if not self._on_gpu:
            self._function()
        elif self._calls <= EAGER_CALLS:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._function()
            torch.cuda.current_stream().wait_stream(side)
        else:
            self._graph = self._graph or self._capture()
            self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            self._function()
        return graph


class Average:
    """The weights averaged over the last steps, which is what is kept and judged."""

    def __init__(self, weights: Tensors, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._sources = [weight.detach() for weight in weights.values()]
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self) -> None:
        """Take the weights of one more step in."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(list(self.weights.values()), self._sources, 1 - decay)


def picture_loss(shown: torch.Tensor, truth: torch.Tensor, kind: str) -> torch.Tensor:
    """Return one number for pictures [B, 3, height, width].

    `robust` is Charbonnier's, on the pictures and on three smaller ones; `psnr` is what the PSNR
    of each picture loses, in nepers, which makes the easy ones count as much as the hard.
    """
    if kind == "psnr":
        errors = (shown - truth).square().mean((1, 2, 3))
        return torch.log(errors + 1e-5).mean()
    error = shown - truth
    total = torch.sqrt(error.square() + 1e-6).mean()
    for _ in range(3):
        error = F.avg_pool2d(error, 2)
        total = total + torch.sqrt(error.square() + 1e-6).mean()
    return total


@torch.no_grad()
def gain_over_average(shown: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Return by how many dB `shown` is closer to the middle of `pictures` [3, B, ...], [1]."""
    before, middle, after = pictures

    def level(picture: torch.Tensor) -> torch.Tensor:
        return (picture - middle).square().mean((1, 2, 3)).clamp_min(1e-6).log10().mean()

    return 10 * (level((before + after) / 2) - level(shown.clamp(0, 1)))
