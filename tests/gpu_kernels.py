"""What the stages of tests/gpu_fakes.py do on a real GPU; tests/fake_torch.py has the same."""

import torch

SPIN_CYCLES = 200_000  # some 0.1 ms of a GPU


def place(device):
    return torch.empty(0, device=device).device


def warm_up(device):
    if device.type == "cuda":
        out = torch.zeros(8, device=device)
        out[:] = out.clone()  # these load what `queue` needs
        out *= 2
        out += 1
        out += out.clone()
        torch.cuda._sleep(1)
        torch.cuda.synchronize()


def queue(device, inputs, outputs, work):
    """Have the work queued, late; to wait for it is an error."""
    assert {tensor.device for tensor in (*inputs, *outputs)} == {device}
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        torch.cuda._sleep(SPIN_CYCLES)
    work()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")


def break_gpu(device):
    """Have a kernel fail, which the process learns of later, and never recovers from."""
    torch.zeros(1, device=device)[torch.tensor([7], device=device)]
