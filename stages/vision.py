"""torchvision where torch has no CUDA: what the processors of vision models need before import."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# What torchvision registers shapes for at import, whether or not its operators were loaded.
_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def make_torchvision_importable() -> None:
    """Let `import torchvision` succeed beside a torch of another build; call before transformers.

    The package index has torchvision for CUDA alone. Beside a CPU build of torch its operators
    cannot be loaded, and its import fails on the first of them. The processors of vision models
    resize pictures by torch, and use none of these operators: to know their names is enough.
    """
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _loads(Path(found.origin).with_name("_C.so")):
        return
    for name, schema in _OPERATORS.items():
        namespace, operator = name.split("::")
        if not hasattr(getattr(torch.ops, namespace), operator):
            torch.library.define(name, schema)


def _loads(library: Path) -> bool:
    import torch

    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
