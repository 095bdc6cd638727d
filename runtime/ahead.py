"""What a worker begins before it is told anything: importing its stages, opening its GPU.

Both take seconds, and nothing that a message could say changes them. What goes wrong here is not
told here: it goes wrong once more when the worker is told to build its stages, or to load them.
"""

from __future__ import annotations

import gc
import importlib
import threading
from collections.abc import Sequence
from contextlib import suppress

from ipc.cuda_driver import Device, import_driver
from ipc.errors import IpcError


class Ahead(threading.Thread):
    """Imports one module after the other; the driver opens the GPU beside that, without Python.

    Whoever needs a module or the GPU meanwhile waits for it, as for an import of any other thread.
    Garbage is looked for once all is imported, and not among that: torch alone makes half a million
    objects that stay, and looking through them again and again took 0.9 of the 3.2 s of its import.
    """

    def __init__(self, modules: Sequence[str], *, opens_gpu: bool) -> None:
        """Nothing begins yet.

        Args:
            modules: of the worker's stages.
            opens_gpu: the one that this process sees.
        """
        super().__init__(name="ahead")
        self._modules, self._opens_gpu = modules, opens_gpu
        self._device: Device | None = None  # for as long as the process lives

    def start(self) -> None:
        """Begin."""
        gc.disable()
        super().start()

    def run(self) -> None:
        """Import; this thread alone, as two that import can come to wait for each other."""
        try:
            if self._opens_gpu:
                with suppress(IpcError):
                    import_driver()
                    threading.Thread(target=self._open_gpu, name="open-gpu").start()
            for name in self._modules:
                with suppress(Exception):
                    importlib.import_module(name)
        finally:
            gc.freeze()
            gc.enable()

    def _open_gpu(self) -> None:
        with suppress(IpcError):
            self._device = Device(0)
