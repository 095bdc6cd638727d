"""Every exception that ipc/ raises.

IpcError
 |- WouldBlock      nothing to take, or no free slot: try again after the next message
 |- Closed          *we* closed this end
 |- PeerLost        *the other end* died or vanished
 |- NoMemory        the host, or a GPU, does not give the memory that was asked for
 |- NoCuda          what calls the GPU driver, or the driver itself, is not installed
 |- CudaError       a call of the GPU driver failed
 `- ProtocolError   a message or slot state that no correct peer can produce
"""

# After these every call of the context fails likewise: only a new process can go on.
LOST = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "DEINITIALIZED",
        "DEVICE_UNAVAILABLE",
        "ECC_UNCORRECTABLE",
        "NVLINK_UNCORRECTABLE",
        "CONTAINED",
        "ILLEGAL_ADDRESS",
        "LAUNCH_TIMEOUT",
        "CONTEXT_IS_DESTROYED",
        "ASSERT",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_INSTRUCTION",
        "MISALIGNED_ADDRESS",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "TENSOR_MEMORY_LEAK",
        "MPS_RPC_FAILURE",
        "MPS_CLIENT_TERMINATED",
        "EXTERNAL_DEVICE",
        "UNKNOWN",
    )
)


class IpcError(Exception):
    """Base class; catch it only where a worker's fate is decided."""


class WouldBlock(IpcError):
    """The operation would have to wait."""


class Closed(IpcError):
    """Our own end was closed, by us."""


class PeerLost(IpcError):
    """The process at the other end is gone."""


class NoMemory(IpcError):
    """The host, or a GPU, refused the memory of a pool."""


class NoCuda(IpcError):
    """The package cuda-bindings or NVIDIA's driver is not installed."""


class CudaError(IpcError):
    """A call of the GPU driver failed."""

    def __init__(self, code: int, name: str, call: str, meaning: str) -> None:
        super().__init__(f"{call}: {name} ({code}): {meaning}")
        self.code = code
        self.name = name  # "CUDA_ERROR_..."
        self.call = call  # "cuMemAlloc"

    @property
    def is_lost(self) -> bool:
        """Whether the context is unusable from now on."""
        return self.name in LOST


class ProtocolError(IpcError):
    """The peer broke the protocol; it is a bug, never a condition to retry."""
