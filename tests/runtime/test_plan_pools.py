"""Where tensors lie, and how they get to their readers."""

import pytest

from runtime.config import load_config
from runtime.errors import PlanError
from runtime.plan import make_plan, plan_workers
from runtime.plan_reach import Reach
from tests.runtime.test_plan import EDEN, config_of, host, plan_of

TWO = {"encode": {"gpus": [0]}, "denoise": {"gpus": [1]}, "decode": {"gpus": [0]}}


NEEDED = (
    r"interpolate: 837 MiB of cuda:0's memory are needed before anything is computed "
    r"\(512 MiB for weights and CUDA itself; 276 MiB for 4 slots of encode\+denoise\+decode/0 with "
    r"tokens_dit, tokens_dec, stats, difference, latents; 48\.9 MiB for copies in and out\), and "
    r"700 MiB are free; make items smaller, as `video\.pairs` does for video$"
)


def lies(plan):
    """Tensor -> where, of the first worker that writes it."""
    return {place.name: pool.memory for pool in reversed(plan.pools) for place in pool.places}


def transports(plan):
    return {(link.sender, link.receiver): link.transport for link in plan.links}


def test_what_only_gpus_read_stays_on_the_gpu_that_wrote_it():
    plan = plan_of(load_config("dual_gpu.yaml"))
    assert lies(plan) == {
        "frames": "host",
        "tokens_dit": "cuda:0",
        "tokens_dec": "cuda:0",
        "stats": "cuda:0",
        "difference": "cuda:0",
        "latents": "cuda:1",
        "middle": "host",
    }
    assert transports(plan) == {
        ("read/0", "encode+decode/0"): "host",
        ("encode+decode/0", "denoise/0"): "cuda-copy",
        ("denoise/0", "encode+decode/0"): "cuda-copy",
    } | {("encode+decode/0", writer): "host" for writer in plan.workers_of("write")}


def test_stages_in_workers_of_one_gpu_read_in_place():
    plan = plan_of(config_of(**{name: {"gpus": [0]} for name in TWO}))
    assert transports(plan)["encode/0", "denoise/0"] == "cuda-view"
    assert lies(plan)["tokens_dit"] == "cuda:0"


def test_a_gpu_that_is_no_peer_is_reached_through_host_memory():
    plan = plan_of(config_of(**TWO), host(peers=False))
    assert lies(plan)["tokens_dit"] == "host", "denoise cannot reach it"
    assert lies(plan)["tokens_dec"] == "cuda:0", "decode lies on the same GPU"
    assert transports(plan)["encode/0", "denoise/0"] == "host"


def test_host_memory_can_be_required_and_refused():
    plan = plan_of(config_of(**TWO, run={"require": "host"}))
    assert set(lies(plan).values()) == {"host"}
    assert set(transports(plan).values()) == {"host"}
    plan_of(config_of(**TWO, run={"require": "cuda"}))
    with pytest.raises(PlanError, match=r"denoise/0 cannot read the GPU memory of encode/0"):
        plan_of(config_of(**TWO, run={"require": "cuda"}), host(peers=False))


def test_workers_that_tried_in_vain_take_host_memory():
    config, where = config_of(**TWO), host()
    workers, _warnings = plan_workers(config, where)
    encode, denoise = workers[1:3]
    assert Reach(where).transport(encode, denoise) == "cuda-copy"
    failed = Reach(where, failed={("encode/0", "denoise/0"): "no"})
    assert failed.transport(encode, denoise) == "host"
    assert failed.transport(denoise, encode) == "cuda-copy"


def test_replicas_of_a_group_open_no_pool_of_each_other():
    plan = plan_of(load_config("dual_gpu_replicas.yaml"))
    for worker in ("encode+denoise+decode/0", "encode+denoise+decode/1"):
        owners = {pool.owner for pool in plan.pools_of(worker)}
        assert owners == {"read/0", worker}
    assert {pool.owner for pool in plan.pools_of("write/1")} == {
        "read/0",
        "encode+denoise+decode/0",
        "encode+denoise+decode/1",
    }


def test_the_pools_on_a_gpu_must_fit_there():
    small = host()
    gpus = tuple(type(gpu)(gpu.index, gpu.uuid, "small", 2**32, 700 * 2**20) for gpu in small.gpus)
    where = type(small)("h", "6", "3.12", 8, 64 * 2**30, gpus, "", small.peers)
    with pytest.raises(PlanError, match=NEEDED):
        plan_of(load_config("single_gpu.yaml"), where)


def test_a_stage_on_numpy_arrays_has_no_tensors_on_a_gpu():
    """A worker's GPU is no use to it; what it reads and writes lies in host memory."""
    from tests.runtime import test_plan

    config = config_of(**TWO)
    plan = plan_of(config)
    assert lies(plan)["latents"] == "cuda:1"
    stages = {n: (k, r, w) for n, (k, r, w) in EDEN.items()}
    workers, _warnings = plan_workers(config, host())
    descriptions, tensors = test_plan.described(stages)
    changed = [
        d if d.name != "decode" else type(d)(**{**_fields(d), "library": "numpy"})
        for d in descriptions
    ]
    plan = make_plan(config, host(), workers, changed, tensors, memory={}, num_items=128)
    assert lies(plan)["latents"] == lies(plan)["tokens_dec"] == "host"
    assert lies(plan)["tokens_dit"] == "cuda:0"


def _fields(description):
    return {name: getattr(description, name) for name in description.__struct_fields__}


def test_what_no_sink_reads_has_few_slots_on_a_gpu():
    plan = plan_of(load_config("dual_gpu.yaml"))
    slots = {(pool.owner, pool.memory): pool.num_slots for pool in plan.pools}
    assert slots == {
        ("read/0", "host"): plan.window,
        ("encode+decode/0", "host"): plan.window,  # write reads `middle`
        ("encode+decode/0", "cuda:0"): 7,
        ("denoise/0", "cuda:1"): 7,
    }
    assert plan.window > 7
    short = plan_of(load_config("dual_gpu.yaml"), num_items=2)
    assert {pool.num_slots for pool in short.pools} == {2}


def test_what_nobody_reads_lies_with_the_other_tensors_of_its_writer():
    """Seen: the pool of such a tensor alone, on a GPU, had no reader to free its slots."""
    kind, reads, writes = EDEN["decode"]
    more = EDEN | {"decode": (kind, reads, writes | {"debug": ((16,), "float32")})}
    assert lies(plan_of(config_of(**TWO), stages=more))["debug"] == "host", "as `middle`"
    kind, reads, writes = EDEN["encode"]
    more = EDEN | {"encode": (kind, reads, writes | {"debug": ((16,), "float32")})}
    assert lies(plan_of(config_of(**TWO), stages=more))["debug"] == "cuda:0", "as its tokens"


def test_staging_slots_are_counted_where_a_gpu_worker_copies():
    plan = plan_of(config_of(**TWO))
    frames, middle, latents = 17 * 518400, 16 * 518400, 16 * 345 * 16 * 4
    tokens_dit, difference = 17 * 1380 * 768 * 2, 256  # a multiple of 256 bytes, as in a pool
    assert {device.device: device.staging_bytes for device in plan.memory} == {
        "host": 0,
        "cuda:0": 3 * (frames + latents + middle),
        "cuda:1": 3 * (tokens_dit + difference),
    }
