"""What the doctor saw, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from runtime.cli_table import nbytes_text, table
from runtime.doctor import Checkup, Limit

if TYPE_CHECKING:
    from runtime.links import Link

_PTRACE = {
    None: "not restricted by Yama",
    0: "0: every process of yours",
    1: "1: children only; `sudo sysctl kernel.yama.ptrace_scope=0` lets py-spy look at workers",
    2: "2: root only; py-spy needs sudo",
    3: "3: nobody, until the next boot",
}


def describe_checkup(checkup: Checkup) -> str:
    """Return what there is, what each configuration could use, and what is missing."""
    host, packages = checkup.host, checkup.versions
    facts = {
        "host": f"{host.hostname}, Linux {host.kernel}",
        "cores": f"{host.cores} usable",
        "memory": f"{nbytes_text(host.memory_bytes)} usable",
        "memfd": f"does not work: {checkup.memfd_error}" if checkup.memfd_error else "works",
        "locked memory": _limit(checkup.locked_memory, nbytes_text),
        "open files": _limit(checkup.open_files, str),
        "ptrace": _PTRACE.get(checkup.ptrace_scope, str(checkup.ptrace_scope)),
        "/dev/shm": f"{nbytes_text(checkup.shm_bytes)}, {nbytes_text(checkup.shm_free_bytes)} free "
        "(pools are memfds and do not need it)",
        "python": host.python,
        "packages": ", ".join(
            f"{name} {version or 'MISSING'}" for name, version in packages.items()
        ),
        **_gpu_facts(checkup),
    }
    lines = [f"{name:15}{fact}" for name, fact in facts.items()]
    rows = [[one.name, "yes" if one.fits else "no", one.text] for one in checkup.configs]
    advice = table(["configuration", "fits", "here"], rows)
    return "\n".join([*lines, *_gpus(checkup), *_links(checkup.links), "", *advice])


def _gpu_facts(checkup: Checkup) -> dict[str, str]:
    driver, host = checkup.driver, checkup.host
    facts = {"driver": f"{driver.version}, for CUDA up to {driver.cuda}"} if driver.version else {}
    if not host.gpus:
        return facts | {"GPUs": f"none: {host.gpu_note}" if host.gpu_note else "none"}
    return facts | ({"GPUs": host.gpu_note} if host.gpu_note else {})


def _gpus(checkup: Checkup) -> list[str]:
    gpus = checkup.host.gpus
    if not gpus:
        return []
    head = ["GPU", "name", "memory", "free", "UUID"]
    rows = [
        [str(g.index), g.name, nbytes_text(g.total_bytes), nbytes_text(g.free_bytes), g.uuid]
        for g in gpus
    ]
    lines = ["", *table(head, rows, right="memory,free")]
    if len(gpus) > 1:
        peers = [
            [str(gpu.index), *row] for gpu, row in zip(gpus, checkup.driver.peers, strict=True)
        ]
        lines += ["", *table(["reads directly", *(str(gpu.index) for gpu in gpus)], peers)]
    return lines


def _links(links: Sequence[Link]) -> list[str]:
    if not links:
        return []
    head = ["owner", "reader", "transport", "works", "64 MiB", "1 MiB round trip"]
    rows = [
        [
            str(link.owner),
            str(link.reader),
            link.transport,
            "no" if link.error else "yes",
            _speed(link.gb_per_s),
            "" if link.round_trip_us is None else f"{link.round_trip_us:.0f} us",
            link.error,
        ]
        for link in links
    ]
    return ["", *table([*head, ""], rows, right="64 MiB,1 MiB round trip")]


def _speed(gb_per_s: float | None) -> str:
    if gb_per_s is None:
        return ""
    return f"{gb_per_s:.0f} GB/s" if gb_per_s >= 10 else f"{gb_per_s:.1f} GB/s"


def _limit(limit: Limit, text: Callable[[int], str]) -> str:
    soft, hard = (
        "unlimited" if value is None else text(value) for value in (limit.soft, limit.hard)
    )
    return soft if soft == hard else f"{soft}, may be raised to {hard}"
