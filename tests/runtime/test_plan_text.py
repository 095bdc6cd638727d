"""A plan as it is printed."""

from runtime.config import load_config
from runtime.plan_text import describe_plan
from runtime.setup import OpenedJob
from stages.base import Job
from tests.runtime.test_plan import config_of, plan_of


def described(config, untried=()):
    opened = OpenedJob(
        job=Job(input="i", output="o", work_dir="w"),
        facts=b"",
        item_size=16,
        unit="frame pairs",
        num_units=2048,
        broken="",
        plan=plan_of(config),
        untried=frozenset(untried),
    )
    return describe_plan(opened).splitlines()


def test_pools_are_summed_up_for_each_memory():
    lines = described(load_config("dual_gpu.yaml"))
    totals = [line.split() for line in lines if line.startswith("in all")]
    assert [total[2] for total in totals] == ["host", "cuda:0", "cuda:1"]
    for _in, _all, memory, size, _unit in totals:
        shown = [line.split() for line in lines if "/0 " in line and "MiB" in line]
        parts = [float(words[5]) for words in shown if words[1] == memory]
        assert abs(float(size) - sum(parts)) < 0.02 * len(parts)
    on_cpu = described(config_of())
    assert [line.split()[2] for line in on_cpu if line.startswith("in all")] == ["host"]


def test_links_that_nobody_has_tried_yet_are_no_promise():
    owner = "encode+decode/0"
    lines = described(load_config("dual_gpu.yaml"), {(owner, owner), (owner, "denoise/0")})
    links = [line.split(maxsplit=3) for line in lines if " -> " in line]
    shown = {(sender, receiver): how for sender, _to, receiver, how in links}
    assert shown[owner, "denoise/0"] == "cuda-copy, to be tried"
    assert shown["denoise/0", owner] == "cuda-copy"
    assert "to be tried" not in "".join(how for pair, how in shown.items() if "write" in pair[1])
