"""A run as another thread sees it while it goes on."""

import threading
import time
from pathlib import Path

from runtime.config import parse_config
from runtime.live import JOINING, LOADING, RUNNING, STARTING, STOPPING
from runtime.pipeline import Pipeline
from tests.fakes import Add


class LoadsWhenTold(Add):
    """Loads until there is a file."""

    def __init__(self, *, file: str) -> None:
        super().__init__()
        self._file = Path(file)

    def load(self, device: str) -> None:
        while not self._file.exists():
            time.sleep(0.01)


class Watcher(threading.Thread):
    """Looks at a run again and again, and keeps what differs."""

    def __init__(self, on_snapshot):
        super().__init__(name="watcher")
        self.live = None
        self.phases = []
        self._on_snapshot = on_snapshot

    def begin(self, live):
        self.live = live
        self.start()

    def run(self):
        while STOPPING not in self.phases:
            snapshot = self.live.snapshot()
            if snapshot.phase not in self.phases[-1:]:
                self.phases.append(snapshot.phase)
            self._on_snapshot(snapshot)
            time.sleep(0.005)


def run(pipeline, source, tmp_path, **options):
    return pipeline.run(
        input=source, output=tmp_path / "out.txt", run_dir=tmp_path / "run", **options
    )


def test_another_thread_sees_who_loads_and_how_the_items_go(numbers, tmp_path):
    told = tmp_path / "told"
    config = parse_config(
        {
            "pipeline": "fake",
            "stages": {
                "read": {"use": "tests.fakes:Numbers", "with": {"delay_s": 0.05}},
                "add": {"use": f"{__name__}:LoadsWhenTold", "with": {"file": str(told)}},
                "write": {"use": "tests.fakes:Lines"},
            },
        }
    )
    loading, counts = [], []

    def note(snapshot):
        waits = {worker.name: worker.beat.waits_for for worker in snapshot.workers if worker.beat}
        if snapshot.phase == LOADING and waits == {
            "read/0": "the other workers",
            "add/0": "",
            "write/0": "the other workers",
        }:
            loading.append(snapshot)
        if loading or snapshot.elapsed_s > 20:
            told.touch()
        if snapshot.phase == RUNNING:
            counts.append((snapshot.units_done, snapshot.num_units, snapshot.unit))

    watcher = Watcher(note)
    with Pipeline(config) as pipeline:
        run(pipeline, numbers(40), tmp_path, on_start=watcher.begin)
        watcher.join(10)
    assert loading
    assert [(w.name, w.device, w.gpu_use) for w in loading[0].workers] == [
        ("read/0", "cpu", None),
        ("add/0", "cpu", None),
        ("write/0", "cpu", None),
    ]
    assert {of[1:] for of in counts} == {(40, "numbers")}
    assert [c[0] for c in counts] == sorted(c[0] for c in counts)
    assert len({c[0] for c in counts}) > 10
    assert (watcher.phases[0], watcher.phases[-1]) == (STARTING, STOPPING)
    assert [p for p in watcher.phases if p in (LOADING, RUNNING)] == [LOADING, RUNNING]
    last = watcher.live.snapshot()
    assert (last.units_done, last.items_failed, last.elapsed_s > 2) == (40, 0, True)
    assert all(worker.beat.usage.items > 0 for worker in last.workers)


def test_a_run_whose_items_are_all_durable_joins_its_output(make_config, numbers, tmp_path):
    seen = []
    with Pipeline(make_config(), inline=True) as pipeline:
        run(pipeline, numbers(3), tmp_path, on_start=seen.append)
    (live,) = seen
    assert live.snapshot().phase == STOPPING
    assert [worker.beat for worker in live.snapshot().workers] == [None] * 3
    live.phase = RUNNING
    assert live.snapshot().phase == JOINING


def test_a_run_that_has_not_begun_has_no_workers_yet(make_config, numbers, tmp_path):
    seen = []
    with Pipeline(make_config()) as pipeline:
        run(pipeline, numbers(3), tmp_path, on_start=lambda live: seen.append(live.snapshot()))
    assert [(one.phase, one.workers, one.num_units) for one in seen] == [(STARTING, (), 0)]
