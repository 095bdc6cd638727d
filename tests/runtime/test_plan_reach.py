"""Host memory between GPUs is never silent: it is told, or refused with what is to blame."""

from dataclasses import replace

import pytest

from runtime.config import load_config
from runtime.errors import PlanError
from runtime.plan import make_plan, plan_workers
from tests.runtime.test_plan import EDEN, config_of, described, host, plan_of
from tests.runtime.test_plan_pools import TWO, lies

THREE = {"encode": {"gpus": [0]}, "denoise": {"gpus": [1]}, "decode": {"gpus": [2]}}
CUDA = {"require": "cuda"}


def without_peers(one, other):
    """Three GPUs, of which two are no peers of each other."""
    where = host(gpus=3)
    return replace(where, peers=where.peers - {(one, other), (other, one)})


def test_gpus_that_are_no_peers_are_told_of_once_for_each_pair_of_workers():
    plan = plan_of(config_of(**TWO), host(peers=False))
    assert plan.warnings == plan.fallbacks
    assert plan.warnings == (
        "denoise/0 cannot read the GPU memory of encode/0, and takes host memory: "
        "NVIDIA's driver says that cuda:1 is no peer of cuda:0",
        "decode/0 cannot read the GPU memory of denoise/0, and takes host memory: "
        "NVIDIA's driver says that cuda:0 is no peer of cuda:1",
    )


@pytest.mark.parametrize(
    ("config", "where"),
    [
        (config_of(**TWO), host()),
        (config_of(**TWO, run={"require": "host"}), host(peers=False)),
        (load_config("dual_gpu_replicas.yaml"), host(peers=False)),
        (config_of(), host(peers=False)),
    ],
    ids=["peers", "host memory asked for", "no tensor goes from GPU to GPU", "no GPU"],
)
def test_there_is_no_warning_without_a_cause(config, where):
    assert plan_of(config, where).warnings == ()


def test_a_tensor_that_a_cpu_stage_reads_too_is_no_fallback():
    stages = EDEN | {"write": ("sink", ("frames", "middle", "tokens_dit", "difference"), {})}
    stages["decode"] = ("stage", ("tokens_dec", "stats", "latents"), EDEN["decode"][2])
    told = plan_of(config_of(**TWO), host(peers=False), stages).fallbacks
    assert [text.partition(" cannot")[0] for text in told] == ["decode/0"], "of `latents` alone"


def test_each_tensor_between_gpus_is_required_there_not_only_those_for_the_next_stage():
    where = without_peers("GPU-0", "GPU-2")
    assert lies(plan_of(config_of(**THREE), where))["tokens_dec"] == "host"
    with pytest.raises(
        PlanError,
        match=r"run\.require: `tokens_dec` of encode \(encode/0\) gets to decode through host "
        r"memory, which `require: cuda` refuses: decode/0 cannot read the GPU memory of encode/0: "
        r"NVIDIA's driver says that cuda:2 is no peer of cuda:0; `runpipe doctor` shows",
    ):
        plan_of(config_of(**THREE, run=CUDA), where)


def test_a_tensor_that_a_cpu_stage_reads_too_cannot_be_required_on_a_gpu():
    stages = EDEN | {"write": ("sink", ("frames", "middle", "tokens_dit"), {})}
    with pytest.raises(
        PlanError,
        match=r"`tokens_dit` of encode \(encode/0\) gets to denoise through host memory, which "
        r"`require: cuda` refuses: it has to lie there, as write reads it as an array of numpy$",
    ):
        plan_of(config_of(**TWO, run=CUDA), None, stages)
    on_cpu = {"encode": {"gpus": [0]}, "denoise": {"gpus": [0]}}
    stages = EDEN | {"decode": ("stage", ("latents", "tokens_dit"), EDEN["decode"][2])}
    with pytest.raises(PlanError, match=r"it has to lie there, as decode/0 has no GPU$"):
        plan_of(config_of(**on_cpu, run=CUDA), None, stages)


def test_a_worker_that_has_no_pool_of_its_own_cannot_be_required_to_use_it():
    grouped = [["encode", "denoise", "decode"]]
    one = {name: {"gpus": [0]} for name in TWO}
    config, where = config_of(groups=grouped, **one, run=CUDA), host()
    workers, _warnings = plan_workers(config, where)
    owner = workers[1].name
    with pytest.raises(PlanError, match=rf"{owner[:6]}.* cannot have a pool on its GPU: no room"):
        make_plan(
            config,
            where,
            workers,
            *described(EDEN),
            memory={},
            num_items=8,
            unreachable={(owner, owner): "no room"},
        )
