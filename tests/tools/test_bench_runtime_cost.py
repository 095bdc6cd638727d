import json
import subprocess
import sys

import pytest

from tools.bench_runtime_cost import Cost, own_ms


def test_a_samples_cost_is_what_more_of_them_take_without_their_stages():
    few = Cost(samples=16, cpu_s=3.0, stages_s=0.5, wall_s=1.0)
    many = Cost(samples=116, cpu_s=5.0, stages_s=1.5, wall_s=2.0)
    assert own_ms(few, many) == pytest.approx(10.0)


@pytest.mark.slow
def test_a_small_run_says_both_figures(project, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, project / "tools/bench_runtime_cost.py"),
            *("--samples", "48", "--repeat", "1", "--json", "cost.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: over the target, on a busy machine
    assert "runtime's own CPU time a sample" in done.stdout
    found = json.loads((tmp_path / "cost.json").read_text())
    ((few, many),) = found["pairs"]
    assert (few["samples"], many["samples"]) == (16, 64)
    assert many["cpu_s"] > many["stages_s"] > few["stages_s"] > 0
    assert 0 < found["gap_ms"] < found["png_ms"], "the next edit does not wait for the last PNG"
