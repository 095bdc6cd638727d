import sys
import time

from runtime.meter import Meter


def test_only_items_that_leave_the_worker_count_as_done():
    meter = Meter()
    meter.start(1, "encode+decode/0", "decode")
    for stage in ("encode", "encode", "decode"):
        meter.run(time.monotonic())
        meter.ran(stage, 0.5)
    usage = meter.usage()
    assert usage.items == 1
    assert usage.busy_s == 1.5


def test_an_item_that_runs_counts_as_far_as_it_is():
    meter = Meter()
    meter.start(1, "denoise/0", "denoise")
    meter.run(time.monotonic() - 100)
    assert 100 <= meter.usage().busy_s < 110
    meter.ran("denoise", 100.0)
    assert meter.usage().busy_s == 100.0


def test_links_tell_who_was_waited_for_and_whose_bytes_were_read():
    meter = Meter()
    meter.start(1, "decode/0", "decode")
    meter.took("denoise/0", waited_s=0.25, nbytes={"denoise/0": 8, "encode/0": 100})
    meter.took("denoise/0", waited_s=0.5, nbytes={"denoise/0": 8, "decode/0": 1})
    links = {link.peer: link for link in meter.usage().links}
    assert (links["denoise/0"].items, links["denoise/0"].bytes) == (2, 16)
    assert links["denoise/0"].wait_s == 0.75
    assert (links["encode/0"].items, links["encode/0"].bytes) == (0, 100)
    assert [links[peer].transport for peer in ("encode/0", "decode/0")] == ["host", "local"]


def test_a_new_job_starts_from_nothing():
    meter = Meter()
    meter.start(1, "denoise/0", "denoise")
    meter.took("encode/0", waited_s=1.0, nbytes={})
    meter.ran("denoise", 1.0)
    sum(range(10**6))
    meter.start(1, "denoise/0", "denoise")
    usage = meter.usage()
    assert (usage.items, usage.busy_s, usage.links) == (0, 0.0, ())
    assert usage.cpu_user_s < 0.02
    assert usage.max_rss_bytes > 0


def test_usage_says_which_job_it_is_of():
    meter = Meter()
    assert meter.usage().job == 0, "none yet"
    meter.start(3, "denoise/0", "denoise")
    assert meter.usage().job == 3


class LostGpu:
    """torch, on a GPU that no longer answers after a while."""

    class cuda:
        peak = 7

        @staticmethod
        def is_initialized():
            return True

        @classmethod
        def max_memory_allocated(cls):
            if cls.peak is None:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return cls.peak


def test_a_lost_gpu_does_not_stop_the_counting(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", LostGpu)
    meter = Meter()
    meter.start(1, "denoise/0", "denoise")
    assert meter.usage().gpu_peak_bytes == 7
    monkeypatch.setattr(LostGpu.cuda, "peak", None)
    assert meter.usage().gpu_peak_bytes == 7, "what was known last"
