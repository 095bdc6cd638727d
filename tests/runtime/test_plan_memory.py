import pytest

from ipc.records import StageMemory, TensorPlace
from runtime.errors import PlanError
from runtime.host import Gpu, Host
from runtime.plan_memory import CONTEXT_BYTES, check_memory, plan_memory, room_to_return
from runtime.plan_pools import PoolPlan
from runtime.worker_plan import WorkerPlan

GIB = 2**30
GPUS = tuple(Gpu(index, f"GPU-{index}", "H200", 8 * GIB, 4 * GIB) for index in range(2))
HOST = Host("here", "6.1", "3.11", 8, 16 * GIB, GPUS)
WORKERS = (
    WorkerPlan("encode+decode/0", ("encode", "decode"), GPUS[0], 1),
    WorkerPlan("denoise/0", ("denoise",), GPUS[1], 1),
    WorkerPlan("write/0", ("write",), None, 1),
    WorkerPlan("denoise/1", ("denoise",), GPUS[1], 1),
)


def pools(nbytes, gpu=None):
    return [PoolPlan("encode+decode/0", gpu, 1, nbytes, ())]


def stage(name, weights, work):
    return StageMemory(stage=name, weights_bytes=weights, work_bytes=work)


MEMORY = {
    "encode+decode/0": (stage("encode", 1, 50), stage("decode", 2, 70)),
    "denoise/0": (stage("denoise", 3, 30),),
    "denoise/1": (stage("denoise", 3, 30),),
    "write/0": (),
}


def test_stages_of_one_worker_share_what_they_compute_in_and_workers_share_nothing():
    host, first, second = plan_memory(WORKERS, MEMORY, HOST, pools(1000))
    assert (host.device, host.pool_bytes, host.weights_bytes) == ("host", 1000, 0)
    assert (first.device, first.weights_bytes, first.work_bytes) == ("cuda:0", 3, 70)
    assert first.context_bytes == CONTEXT_BYTES
    assert (second.device, second.weights_bytes, second.work_bytes) == ("cuda:1", 6, 60)
    assert second.context_bytes == 2 * CONTEXT_BYTES
    assert second.needed_bytes == 2 * CONTEXT_BYTES + 66


def test_host_memory_must_hold_pools_weights_and_work():
    on_cpu = [WorkerPlan("denoise/0", ("denoise",), None, 1)]
    memory = {"denoise/0": (stage("denoise", 6 * GIB, 5 * GIB),)}
    check_memory("p", plan_memory(on_cpu, memory, HOST, pools(5 * GIB)), num_slots=9)
    with pytest.raises(
        PlanError,
        match=r"p: 17\.0 GiB of memory are needed \(6\.0 GiB for the pools of 9 items under way, "
        r"6\.0 GiB for weights, 5\.0 GiB to compute\), and 16\.0 GiB are free; make items smaller",
    ):
        check_memory("p", plan_memory(on_cpu, memory, HOST, pools(6 * GIB)), num_slots=9)


def test_the_weights_must_fit_on_the_gpu_and_the_rest_may_get_smaller():
    fits = {**MEMORY, "denoise/0": (stage("denoise", 1 * GIB, 100 * GIB),)}
    check_memory("p", plan_memory(WORKERS, fits, HOST, pools(0)), num_slots=9)
    too_large = {**MEMORY, "denoise/0": (stage("denoise", 4 * GIB, 1),)}
    with pytest.raises(PlanError, match=r"5\.0 GiB of cuda:1's memory, and 4\.0 GiB are free"):
        check_memory("p", plan_memory(WORKERS, too_large, HOST, pools(0)), num_slots=9)


def test_pools_and_copies_must_fit_on_the_gpu_and_are_told_apart():
    place = TensorPlace(name="tokens", offset=0, shape=(1,), dtype="uint8", readers=())
    mine = [PoolPlan("encode+decode/0", GPUS[0], 4, GIB // 2, (place,))]
    fits, no = ({"encode+decode/0": nbytes} for nbytes in (GIB, 2 * GIB))
    counted = plan_memory(WORKERS, MEMORY, HOST, mine, fits)
    check_memory("p", counted, num_slots=9)
    assert counted[1].needed_bytes == 3 * GIB + CONTEXT_BYTES + 3 + 70
    with pytest.raises(
        PlanError,
        match=r"p: 4\.5 GiB of cuda:0's memory are needed .*; 2\.0 GiB for 4 slots of "
        r"encode\+decode/0 with tokens; 2\.0 GiB for copies in and out\), and 4\.0 GiB are free; "
        r"make items smaller, as `video\.pairs` does for video$",
    ):
        check_memory("p", plan_memory(WORKERS, MEMORY, HOST, mine, no), num_slots=9)


def test_the_way_out_is_named_for_what_is_too_large():
    on_cpu = [WorkerPlan("denoise/0", ("denoise",), None, 1)]
    memory = {"denoise/0": (stage("denoise", 40 * GIB, 1),)}
    with pytest.raises(PlanError, match="are free; use smaller weights, or a GPU"):
        check_memory("p", plan_memory(on_cpu, memory, HOST, pools(1 * GIB)), num_slots=9)


def test_a_worker_that_comes_back_needs_room_for_all_that_it_had_but_cuda_itself():
    mine = [PoolPlan("denoise/0", GPUS[1], 4, 25, ()), PoolPlan("denoise/1", None, 4, 1000, ())]
    room = room_to_return(WORKERS, MEMORY, mine, {"denoise/0": 7})
    assert room == {"encode+decode/0": 1 + 2 + 70, "denoise/0": 33 + 100 + 7, "denoise/1": 33}


def test_a_worker_that_comes_back_waits_for_no_more_than_was_there_at_first():
    """Else an estimate that is too large would hold up every restart."""
    memory = MEMORY | {"denoise/0": (stage("denoise", 1 * GIB, 100 * GIB),)}
    room = room_to_return(WORKERS, memory, [], {})
    assert room["denoise/0"] == 4 * GIB - 2 * CONTEXT_BYTES - 33
    assert room["denoise/1"] == 0, "what the other one says of itself leaves it nothing"
