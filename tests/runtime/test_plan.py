import pytest

from ipc.records import StageDescription, StageTensor
from runtime.config import load_config, parse_config
from runtime.errors import ConfigError, PlanError
from runtime.host import Gpu, Host
from runtime.plan import make_plan, plan_workers

EDEN = {
    "read": ("source", (), {"frames": ((17, 518400), "uint8")}),
    "encode": (
        "stage",
        ("frames",),
        {
            "tokens_dit": ((17, 1380, 768), "bfloat16"),
            "tokens_dec": ((17, 1380, 768), "bfloat16"),
            "stats": ((17, 2), "float32"),
            "difference": ((16, 1), "float32"),
        },
    ),
    "denoise": ("stage", ("tokens_dit", "difference"), {"latents": ((16, 345, 16), "float32")}),
    "decode": (
        "stage",
        ("latents", "tokens_dec", "stats"),
        {"middle": ((16, 518400), "uint8")},
    ),
    "write": ("sink", ("frames", "middle"), {}),
}


def host(*, gpus=2, cores=8, memory_bytes=64 * 2**30, peers=True):
    names = [f"GPU-{i}" for i in range(gpus)]
    pairs = {(one, other) for one in names for other in names if one != other and peers}
    return Host(
        hostname="h",
        kernel="6",
        python="3.12",
        cores=cores,
        memory_bytes=memory_bytes,
        gpus=tuple(Gpu(i, name, "H200", 2**37, 2**37) for i, name in enumerate(names)),
        peers=frozenset(pairs),
    )


def described(stages):
    """What the workers say of their stages before they load, and the tensors of an item."""
    descriptions = [
        StageDescription(
            name=name,
            kind=kind,
            reads=reads,
            writes=tuple(writes),
            accepts=(),
            library="torch" if kind == "stage" else "numpy",
            items_per_segment=4 if kind == "sink" else 0,
        )
        for name, (kind, reads, writes) in stages.items()
    ]
    tensors = [
        StageTensor(stage=name, name=tensor, shape=shape, dtype=dtype)
        for name, (_kind, _reads, writes) in stages.items()
        for tensor, (shape, dtype) in writes.items()
    ]
    return descriptions, tensors


def plan_of(config, where=None, stages=None, num_items=128):
    where, stages = where or host(), stages or EDEN
    workers, warnings = plan_workers(config, where)
    descriptions, tensors = described(stages)
    return make_plan(
        config,
        where,
        workers,
        descriptions,
        tensors,
        memory={},
        num_items=num_items,
        warnings=warnings,
    )


def config_of(*, groups=(), run=None, **changes):
    stages = {name: {"use": "m:C", **changes.get(name, {})} for name in EDEN}
    return parse_config({"pipeline": "p", "stages": stages, "groups": groups, "run": run or {}})


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        (
            "demo.yaml",
            {"read/0": "cpu", "encode/0": "cpu", "denoise/0": "cpu", "decode/0": "cpu"},
        ),
        ("single_gpu.yaml", {"read/0": "cpu", "encode+denoise+decode/0": "cuda:0"}),
        (
            "dual_gpu.yaml",
            {"read/0": "cpu", "encode+decode/0": "cuda:0", "denoise/0": "cuda:1"},
        ),
        (
            "dual_gpu_replicas.yaml",
            {
                "read/0": "cpu",
                "encode+denoise+decode/0": "cuda:0",
                "encode+denoise+decode/1": "cuda:1",
            },
        ),
        (
            "dual_gpu_origin.yaml",
            {"read/0": "cpu", "encode/0": "cuda:0", "denoise+decode/0": "cuda:1"},
        ),
    ],
)
def test_the_configurations_that_ship_have_the_workers_they_promise(name, workers):
    plan = plan_of(load_config(name))
    shown = {worker.name: worker.shown_device for worker in plan.workers}
    writers = dict.fromkeys(plan.workers_of("write"), "cpu")
    assert shown == workers | writers


def test_the_gpu_configurations_encode_alike_so_that_they_write_the_same_file():
    names = ("single_gpu.yaml", "dual_gpu.yaml", "dual_gpu_replicas.yaml", "dual_gpu_origin.yaml")
    (video, *others) = (load_config(name).video for name in names)
    assert others == [video] * 3
    assert {"codec", "crf", "preset", "threads", "segment_windows"} < video.keys()
    assert not any(load_config(name).stages["write"].options for name in names)


def test_frames_and_decoder_tokens_never_travel_through_denoise():
    plan = plan_of(config_of())
    assert [pool.owner for pool in plan.pools_of("denoise/0")] == ["encode/0", "denoise/0"]
    readers = {place.name: place.readers for pool in plan.pools for place in pool.places}
    assert readers["tokens_dec"] == ("decode",)
    assert readers["frames"] == ("encode", "write")


def test_every_pool_has_a_slot_for_each_item_of_the_window_but_no_more_than_items():
    plan = plan_of(config_of(write={"replicas": 2}))
    assert plan.window == 4 * 2 + 2 * 6
    assert {pool.num_slots for pool in plan.pools} == {plan.window}
    assert {pool.num_slots for pool in plan_of(config_of(), num_items=3).pools} == {3}


def test_the_memory_of_a_long_video_is_that_of_a_short_one():
    short, long = (plan_of(config_of(), num_items=n).pool_bytes for n in (50, 100_000))
    assert short == long


def test_a_window_that_could_deadlock_is_refused_with_the_number_needed():
    with pytest.raises(ConfigError, match=r"run\.window: 5 items .* too few; 14 are needed"):
        plan_of(config_of(run={"window": 5}))
    assert plan_of(config_of(run={"window": 40})).window == 40


def test_pools_that_do_not_fit_are_refused_with_numbers_before_they_are_made():
    with pytest.raises(PlanError, match=r"1\.\d GiB of memory .* 512 MiB are free"):
        plan_of(config_of(), host(memory_bytes=2**29))


def test_tensors_of_a_slot_do_not_overlap_and_are_aligned():
    for pool in plan_of(config_of(groups=[["encode", "decode"]])).pools:
        end = 0
        for place in pool.places:
            assert place.offset >= end
            assert place.offset % 256 == 0
            size = {"uint8": 1, "bfloat16": 2, "float32": 4}[place.dtype]
            for axis in place.shape:
                size *= axis
            end = place.offset + size
        assert end <= pool.slot_bytes


def test_fewer_gpus_than_asked_for_are_shared_and_it_is_said():
    plan = plan_of(load_config("dual_gpu.yaml"), host(gpus=1))
    assert {w.shown_device for w in plan.workers} == {"cpu", "cuda:0"}
    assert plan.warnings == (
        "denoise: GPU 1 is asked for and this host has 1; GPU 0 takes its part",
    )


def test_a_gpu_gets_no_second_replica_in_place_of_one_that_is_not_there():
    replicas = load_config("dual_gpu_replicas.yaml")
    workers, warnings = plan_workers(replicas, host(gpus=1))
    on_gpu = [worker.name for worker in workers if worker.gpu]
    assert on_gpu == ["encode+denoise+decode/0"]
    assert warnings == [
        "encode+denoise+decode: GPU 1 is asked for and this host has 1; it is done without"
    ]
    twice = load_config(
        "dual_gpu_replicas.yaml",
        [f"stages.{s}.gpus=[0, 0]" for s in ("encode", "denoise", "decode")],
    )
    workers, warnings = plan_workers(twice, host(gpus=1))
    assert len([worker for worker in workers if worker.gpu]) == 2, "as it was asked for"
    assert not warnings


def test_no_gpu_at_all_is_refused_with_a_way_out():
    with pytest.raises(PlanError, match=r"GPU 0 is asked for and this host has none; .*demo"):
        plan_of(load_config("single_gpu.yaml"), host(gpus=0))


def test_cores_are_shared_by_the_stages_that_compute_grouped_or_not():
    apart = plan_of(config_of(), host(cores=6))
    grouped = plan_of(config_of(groups=[["encode", "denoise", "decode"]]), host(cores=6))
    assert {w.threads for w in apart.workers} == {w.threads for w in grouped.workers} == {2}
    assert {w.threads for w in plan_of(config_of(run={"threads": 5})).workers} == {5}


def test_links_are_local_within_a_worker_and_through_host_memory_elsewhere():
    links = plan_of(config_of(groups=[["denoise", "decode"]])).links
    assert [(link.sender, link.receiver, link.transport) for link in links] == [
        ("read/0", "encode/0", "host"),
        ("encode/0", "denoise+decode/0", "host"),
        ("denoise+decode/0", "denoise+decode/0", "local"),
        ("denoise+decode/0", "write/0", "host"),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"denoise": ("stage", ("nothing",), {})}, "stages.denoise: reads `nothing`, which no"),
        (
            {"denoise": ("stage", ("tokens_dit",), {"stats": ((1,), "uint8")})},
            "stages.denoise: writes `stats`, which encode writes already",
        ),
        ({"denoise": ("sink", ("tokens_dit",), {})}, "stages.denoise: is a sink, but a stage"),
        (
            {"denoise": ("stage", ("tokens_dit",), {"latents": ((1,), "float8")})},
            "stages.denoise: `latents` has dtype float8; known are",
        ),
        (
            {"denoise": ("stage", ("frames",), {"latents": ((1,), "uint8")})},
            "stages.denoise: reads nothing that encode writes",
        ),
    ],
)
def test_stages_that_do_not_fit_together_are_refused_by_name(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        plan_of(config_of(), stages=EDEN | change)
