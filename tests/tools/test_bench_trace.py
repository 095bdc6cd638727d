import json
import subprocess
import sys

import pytest

from tools.bench_trace import Cost, Result


@pytest.mark.slow
def test_a_small_run_measures_both_ways_and_says_what_tracing_adds(project, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, project / "tools/bench_trace.py", "--no-demo"),
            *("--items", "20", "--repetitions", "2", "--json", "cost.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trivial: 20 items" in done.stdout
    assert done.stdout.count("quartiles of 2 pairs") == 2
    (result,) = json.loads((tmp_path / "cost.json").read_text())
    assert [len(result[key]) for key in ("without", "traced")] == [2, 2]
    assert all(cost["cpu"] > 0 for cost in result["without"])
    assert result["trace_bytes"] > 20 * 5 * 80, "what is called traced is traced"


def test_what_tracing_adds_is_of_pairs_that_ran_side_by_side():
    without = [Cost(1.0, 2.0), Cost(2.0, 4.0), Cost(4.0, 8.0)]
    traced = [Cost(1.1, 2.0), Cost(2.2, 4.0), Cost(4.4, 8.0)]
    result = Result("p", 1, without, traced, 0)
    assert result.added(lambda cost: cost.wall) == pytest.approx((0.1, 0.1, 0.1))
    assert result.added(lambda cost: cost.cpu) == (0.0, 0.0, 0.0)
    assert result.added_at_best(lambda cost: cost.wall) == pytest.approx(0.1)
