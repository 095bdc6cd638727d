"""What the tests on GPUs said last, and which of the code that they cover has changed since.

A pytest plugin. `python -m pytest -m gpu --gpu-record=FILE` writes the record; every other run
compares the code with tests/gpu_record.json, which is such a file, and says so in its summary.
"""

import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "gpu_record.json"
COVERED = (  # what has to be run on a GPU to be known to work
    "ipc/cuda*.py",
    "runtime/gpu_*.py",
    "runtime/item*.py",
    "runtime/link_*.py",
    "runtime/memory.py",
    "runtime/outgoing.py",
    "runtime/plan_pools.py",
    "runtime/plan_reach.py",
    "runtime/pools.py",
    "runtime/reach.py",
    "runtime/views.py",
    "runtime/worker.py",
    "runtime/worker_gpu.py",
    "stages/eden/**/*.py",
    "configs/*gpu*.yaml",
)
SHOWN = 8  # files, before the rest is counted


def digests():
    """Return the SHA-256 of every covered file, by its path in the repository."""
    files = sorted({path for pattern in COVERED for path in ROOT.glob(pattern)})
    return {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def changed_since(record):
    """Return the covered files that are not as they were when `record` was made."""
    then, now = record["files"], digests()
    return sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))


def summary(record):
    """Return what to say of the last run on GPUs, one line or two."""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in record["outcomes"].items())
    when, where = record["date"][:10], ", ".join(record["gpus"])
    line = f"on GPUs ({where}): {counts}, {when}, commit {record['commit'][:10] or 'unknown'}"
    changed = changed_since(record)
    if not changed:
        return [line]
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return [line, f"changed since then: {', '.join(changed[:SHOWN])}{more}"]


def pytest_addoption(parser):
    parser.addoption("--gpu-record", metavar="FILE", help="write what the tests on GPUs said")
    parser.addoption("--commit", default="", help="of what is tested, for the record")


def pytest_terminal_summary(terminalreporter, config):
    """Write the record, or say how the code stands to the last one."""
    path = config.getoption("--gpu-record")
    if path:
        Path(path).write_text(json.dumps(make_record(terminalreporter, config), indent=1) + "\n")
    elif RECORD.exists():
        terminalreporter.section("tests on GPUs")
        for line in summary(json.loads(RECORD.read_text())):
            terminalreporter.line(line)


def make_record(reporter, config):
    """Return everything that is to be known of this run."""
    tests = {
        report.nodeid: outcome
        for outcome in ("passed", "failed", "error", "skipped")
        for report in reporter.stats.get(outcome, ())
        if report.when == "call" or outcome != "passed"
    }
    outcomes = list(tests.values())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": config.getoption("--commit") or _commit(),
        "command": " ".join(["python -m pytest", *config.invocation_params.args]),
        "gpus": _gpus(),
        "versions": _versions(),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        "tests": tests,
        "files": digests(),
    }


def _commit():
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else ""


def _gpus():
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _versions():
    torch = sys.modules.get("torch")
    found = {"python": platform.python_version()}
    if torch is not None:
        found |= {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    for name in ("triton", "cuda.bindings", "av", "zmq"):
        module = sys.modules.get(name)
        if version := getattr(module, "__version__", ""):
            found[name] = version
    return found
