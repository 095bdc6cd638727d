"""What benchmarks ask NVIDIA's library: names, driver, and the memory that processes have."""

from __future__ import annotations

import importlib
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

SAMPLE_S = 0.05


@contextmanager
def nvml() -> Iterator[Any]:
    """Give the library, or None where there is none, or no driver."""
    library: Any = None
    with suppress(ImportError):
        library = importlib.import_module("pynvml")
    try:
        if library is not None:
            library.nvmlInit()
    except library.NVMLError:  # no driver
        library = None
    if library is None:
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def gpu_facts() -> dict[str, object]:
    """Return driver, CUDA version, names and power limits of the GPUs; {} where there are none."""
    with nvml() as library:
        if library is None:
            return {}
        cuda = library.nvmlSystemGetCudaDriverVersion()
        return {
            "driver": library.nvmlSystemGetDriverVersion(),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": [
                {
                    "name": library.nvmlDeviceGetName(handle),
                    "uuid": library.nvmlDeviceGetUUID(handle),
                    "memory_bytes": int(library.nvmlDeviceGetMemoryInfo(handle).total),
                }
                for handle in _handles(library)
            ],
        }


class GpuMemory:
    """Samples, while its with-block runs, what some processes have of each GPU.

    By NVML, per process: weights, pools, captured graphs, torch's cache, and the context itself
    with the code of all libraries, which no allocator of a process knows.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = frozenset(pids)
        self._peaks: dict[str, int] = defaultdict(int)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_all, name="gpu-memory", daemon=True)

    def peaks(self) -> dict[str, int]:
        """Return the most bytes of each GPU, by UUID; of GPUs without these processes nothing."""
        return dict(self._peaks)

    def _sample_all(self) -> None:
        with nvml() as library:
            if library is None:
                return
            handles = {library.nvmlDeviceGetUUID(handle): handle for handle in _handles(library)}
            is_over = False
            while not is_over:  # once more at the end
                is_over = self._ended.wait(SAMPLE_S)
                for uuid, handle in handles.items():
                    self._sample(library, uuid, handle)

    def _sample(self, library: Any, uuid: str, handle: object) -> None:  # noqa: ANN401
        with suppress(library.NVMLError):  # it may be shared in a way that hides processes
            running = library.nvmlDeviceGetComputeRunningProcesses(handle)
            taken = [each.usedGpuMemory or 0 for each in running if each.pid in self._pids]
            if taken:
                self._peaks[uuid] = max(self._peaks[uuid], sum(taken))

    def __enter__(self) -> GpuMemory:
        """Begin to sample, if there is anybody."""
        if self._pids:
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
        if self._pids:
            self._thread.join()


def _handles(library: Any) -> list[Any]:  # noqa: ANN401
    count = library.nvmlDeviceGetCount()
    return [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
