"""Runs in which somebody dies, and what must be the same as if nobody had."""

from collections import Counter
from contextlib import closing

from runtime.config import parse_config
from runtime.journal import Journal
from runtime.pipeline import Pipeline

NUM_ITEMS = 24
STAGES = {
    "read": {"use": "tests.striking:StrikingNumbers"},
    "first": {"use": "tests.striking:Hashes", "with": {"writes": "a"}},
    "second": {"use": "tests.striking:Hashes", "with": {"reads": "a", "writes": "b"}},
    "third": {"use": "tests.striking:Hashes", "with": {"reads": "b", "writes": "c"}},
    "write": {"use": "tests.striking:StrikingLines", "with": {"reads": "x c"}},
}


class Case:
    """One pipeline, undisturbed and with deaths in it."""

    def __init__(self, folder, *, groups=(), run=None, **stages):
        """`stages`: what differs in one of STAGES, and as `strike` when it dies."""
        self.folder = folder
        (folder / "marks").mkdir(exist_ok=True)
        self._groups, self._run, self._stages = groups, run or {}, stages

    def config(self, *, with_deaths=True):
        named = {}
        for name, stage in STAGES.items():
            more = dict(self._stages.get(name, {}))
            options = {**stage.get("with", {}), **more.pop("with", {})}
            strike = more.pop("strike", None)
            if strike is not None and with_deaths:
                options["strike"] = {"marks": str(self.folder / "marks"), **strike}
            named[name] = {**stage, **more, "with": options}
            if not with_deaths:
                named[name]["use"] = stage["use"]
        return parse_config(
            {"pipeline": "fake", "stages": named, "groups": self._groups, "run": self._run}
        )

    def undisturbed(self, source):
        """Return the output of a run without deaths or processes."""
        with Pipeline(self.config(with_deaths=False), inline=True) as pipeline:
            pipeline.run(
                input=source, output=self.folder / "wanted", run_dir=self.folder / "run wanted"
            )
        return (self.folder / "wanted").read_text()

    def undisturbed_lines(self, source):
        return self.undisturbed(source).splitlines()

    def run(self, source):
        """Return the report of a run with its deaths."""
        with Pipeline(self.config()) as pipeline:
            return run(pipeline, source, self.folder)

    def output(self):
        return (self.folder / "out").read_text()


def run(pipeline, source, folder):
    return pipeline.run(input=source, output=folder / "out", run_dir=folder / "run")


def journaled(folder):
    """Return how often each item is in the journal of the run."""
    with closing(Journal.open(folder / "run/journal.sqlite")) as journal:
        return Counter(item for row in journal.rows() for item in row.items)


def restarts(report):
    return {worker.name: worker.restarts for worker in report.workers if worker.restarts}


def check_whole(report, folder, num_items=NUM_ITEMS):
    """Check that the run is as whole as if nobody had died."""
    assert report.status == "done"
    assert (report.items.done, report.items.failed) == (num_items, 0)
    assert (report.units.done, report.units.failed) == (num_items, 0)
    assert journaled(folder) == Counter(range(num_items))
    check_folder(folder, num_items)


def check_folder(folder, num_items=NUM_ITEMS, per_segment=4):
    """Check that the run directory has each segment once, and nothing half-written."""
    names = sorted(path.name for path in (folder / "run/segments").iterdir())
    assert names == [f"{number:06d}.txt" for number in range(-(-num_items // per_segment))]
    found = {path.name for path in (folder / "run").iterdir()}
    assert found >= {"journal.sqlite", "report.json", "workers.json", "trace.json"}
    assert not [name for name in found if "partial" in name]
