"""The page of a run that has ended: made by a function of the configuration, in its own process.

    python -m runtime.page stages.benchmark.pages:make_page OUTPUT RUN_DIR

What it imports and draws is nobody's business here, and its failure is no failure of the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from runtime.config_files import PROJECT
from runtime.errors import one_line

PAGE_S = 600.0  # how long it may take


def make_page(use: str, output: Path, run_dir: Path) -> str:
    """Call the function `use` for a run that has ended; return why it failed, or "".

    Args:
        use: "module:function", of (output folder, run directory).
        output: the pipeline's output folder.
        run_dir: with report and trace.
    """
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-P", "-m", "runtime.page", use, str(output), str(run_dir)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            timeout=PAGE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no page: {error}"
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return one_line(f"no page: {last or f'exit code {done.returncode}'}") if done.returncode else ""


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    getattr(import_module(module), function)(Path(sys.argv[2]), Path(sys.argv[3]))
