"""How busy the GPUs of a run are, sampled beside it. Needs NVIDIA's library, no CUDA context."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

STUCK_S = 1.0
SAMPLE_S = 0.5  # NVML's own period is 1/6 s to 1 s


class GpuUse:
    """Samples while its with-block runs. Without GPUs, or where NVML does not tell, it has none."""

    def __init__(self, uuids: Iterable[str]) -> None:
        self._uuids = sorted(set(uuids))
        self._sums = dict.fromkeys(self._uuids, 0.0)
        self._counts = dict.fromkeys(self._uuids, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_all, name="gpu-use", daemon=True)

    def mean(self, uuid: str) -> float | None:
        """Return the share of time, 0 to 1, in which kernels ran; None if that is not known."""
        count = self._counts.get(uuid, 0)
        return self._sums[uuid] / count if count else None

    def _sample_all(self) -> None:
        with suppress(ImportError):
            nvml: Any = importlib.import_module("pynvml")
            try:
                nvml.nvmlInit()
            except nvml.NVMLError as error:
                logger.info("no GPU use: %s", error)
                return
            try:
                is_over = False
                while not is_over:  # once more at the end: a short run has been seen too
                    is_over = self._ended.wait(SAMPLE_S)
                    for uuid in self._uuids:
                        self._sample(nvml, uuid)
            finally:
                nvml.nvmlShutdown()

    def _sample(self, nvml: ModuleType, uuid: str) -> None:
        with suppress(nvml.NVMLError):  # it may be shared in a way that hides it
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            self._sums[uuid] += nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            self._counts[uuid] += 1

    def __enter__(self) -> GpuUse:
        """Begin to sample."""
        if self._uuids:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._ended.set()
        if self._uuids:
            self._thread.join(timeout=STUCK_S)  # a GPU that is lost may never answer


def gpu_free_bytes(uuid: str) -> int | None:
    """Return how much memory a GPU has left; None if nobody tells."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        logger.info("no GPU memory: %s", error)
        return None
