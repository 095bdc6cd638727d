"""That a stream of items takes no more memory than its first thousand did."""

import pytest

from runtime.config import parse_config
from runtime.host import probe_host
from runtime.pipeline import Pipeline

GPUS = probe_host().gpus
MANY, FEW = 100_000, 1_000
MAY_GROW_BYTES = 8 * 2**20  # of a worker

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs a GPU")]


def taken():
    """Memory in use on every GPU, by whomever."""
    return [gpu.total_bytes - gpu.free_bytes for gpu in probe_host().gpus]


@pytest.mark.nightly
def test_a_hundred_thousand_items_take_no_more_memory_than_a_thousand(numbers, tmp_path):
    config = parse_config(
        {
            "pipeline": "fake",
            "stages": {
                "read": {"use": "tests.fakes:Numbers", "with": {"width": 4096}},
                "first": {
                    "use": "tests.gpu_fakes:Double",
                    "with": {"writes": "a"},
                    "gpus": [0],
                },
                "second": {
                    "use": "tests.gpu_fakes:Double",
                    "with": {"reads": "a", "writes": "b"},
                    "gpus": [1],
                },
                "third": {
                    "use": "tests.gpu_fakes:Plus",
                    "with": {"reads": "a b", "writes": "c"},
                    "gpus": [0],
                },
                "write": {
                    "use": "tests.gpu_fakes:Ends",
                    "with": {"reads": "c", "per_segment": 100},
                },
            },
            "groups": [["first", "third"]],
            "run": {"trace": False},
        }
    )
    reports, on_gpus = [], []
    with Pipeline(config) as pipeline:
        for count in (FEW, FEW, MANY):  # the first one loads what all need
            folder = tmp_path / f"{len(reports)}"
            folder.mkdir()
            reports.append(
                pipeline.run(input=numbers(count), output=folder / "out", run_dir=folder / "run")
            )
            on_gpus.append(taken())
    assert reports[-1].items.done == MANY
    for few, many in zip(reports[1].workers, reports[2].workers, strict=True):
        assert many.max_rss_bytes <= few.max_rss_bytes + MAY_GROW_BYTES, many.name
        assert many.gpu_peak_bytes == few.gpu_peak_bytes, many.name
    assert on_gpus[2] == on_gpus[1]
