"""The kill matrix: its cells, its judgement, and the named set of them that every commit runs."""

import itertools
import shutil

import msgspec
import pytest

from tools.kill_cells import (
    LAST,
    MIDDLE,
    MOMENTS,
    NAMED_SETS,
    NUM_ITEMS,
    PLAIN,
    WORKERS,
    Cell,
    all_cells,
    chosen,
)
from tools.kill_judge import Result
from tools.kill_matrix import Matrix
from tools.kill_order import STRUCK, VARIABLE, Killer, OrderedError
from tools.kill_table import BEGIN, END, ResultFile, digest_of_sources, markdown, put_table

# --- cells ----------------------------------------------------------------------------------------


def test_everybody_is_killed_in_every_way_at_every_moment():
    names = [cell.name for cell in all_cells()]
    assert len(set(names)) == len(names)
    ways = ("SIGKILL", "SIGSEGV", "SIGSTOP", "SIGTERM", "exit", "run", "load-restart")
    for cell in itertools.product(WORKERS, ways, MOMENTS):
        assert ".".join(cell) in names
    for cell in itertools.product(["supervisor"], ways[:4], MOMENTS):
        assert ".".join(cell) in names
    assert {f"{worker}.load-start.first" for worker in WORKERS} <= set(names)


def test_cells_are_chosen_by_glob_and_by_named_set():
    thrice = chosen(["*.load-restart-always.*"])
    assert [cell.victim for cell in thrice] == list(WORKERS)
    short = chosen(["short"])
    assert {cell.name for cell in short} == set(NAMED_SETS["short"])
    assert {cell.victim for cell in short} >= {"read", "decode", "write", "supervisor"}
    assert {cell.order.moment for cell in short} >= set(MOMENTS)
    with pytest.raises(LookupError, match=r"denoise\.SIGFPE\.middle: no such cell"):
        chosen(["denoise.SIGFPE.middle"])


def test_one_worker_is_alone_and_the_rest_of_eden_shares_one():
    assert Cell("denoise", "exit", "last").groups == [["encode", "decode"]]
    assert Cell("write", "exit", "last").groups == [["encode", "denoise", "decode"]]


# --- orders ---------------------------------------------------------------------------------------


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Return a function: what a stage does of an order, call by call, in one life."""

    def follow(cell, stage):
        monkeypatch.setenv(VARIABLE, str(tmp_path / "order.json"))
        (tmp_path / "order.json").write_bytes(msgspec.json.encode(cell.order))
        killer = Killer(stage)
        steps = [("load", killer.load)]
        for item in range(NUM_ITEMS):
            steps += [
                (f"before {item}", lambda item=item: killer.before(item)),
                (f"after {item}", lambda item=item: killer.after(item)),
            ]
        raised = []
        for name, step in [*steps, ("join", killer.join), ("joined", killer.joined)]:
            try:
                step()
            except OrderedError:
                raised.append(name)
        return raised

    return follow


@pytest.mark.parametrize(
    ("moment", "at"),
    [
        ("first", "before 0"),
        ("middle", f"after {MIDDLE}"),
        ("last", f"before {LAST}"),
        ("draining", f"after {LAST}"),
    ],
)
def test_a_stage_acts_once_at_its_moment(calls, moment, at):
    cell = Cell("decode", "run", moment)
    assert calls(cell, "denoise") == []
    assert calls(cell, "decode") == [at]
    assert calls(cell, "decode") == []  # in its next incarnation


def test_loading_fails_as_often_as_ordered_and_only_after_a_death(calls, tmp_path):
    once = Cell("denoise", "load-restart", "last")
    always = Cell("denoise", "load-restart-always", "last")
    start = Cell("denoise", "load-start", "first")
    assert [calls(start, "denoise") for _ in range(2)] == [["load"], []]
    (tmp_path / "load.0").unlink()
    (tmp_path / STRUCK).touch()
    assert [calls(once, "denoise") for _ in range(2)] == [["load"], []]
    assert [calls(always, "denoise") for _ in range(9)] == [["load"]] * 9
    assert calls(always, "encode") == []


# --- results --------------------------------------------------------------------------------------


def result(cell, sources="a", problems=()):
    return Result(cell=cell, sources=sources, problems=problems, lost=0, twice=0, equal=True)


def test_a_killed_matrix_goes_on_where_it_was(tmp_path):
    path = tmp_path / "results.jsonl"
    file = ResultFile(path, "a")
    file.add(result("read.exit.first"))
    file.add(result("read.exit.middle"))
    path.write_bytes(path.read_bytes()[:-20])  # killed in the middle of a line
    again = ResultFile(path, "a")
    assert set(again.results) == {"read.exit.first"}
    again.add(result("read.exit.last"))
    assert set(ResultFile(path, "a").results) == {"read.exit.first", "read.exit.last"}
    assert ResultFile(path, "b").results == {}


def test_results_are_of_these_sources_and_of_no_others(tmp_path, project):
    for name in ("bin/runpipe", "runtime/run.py", "configs/demo.yaml", "tools/kill_run.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(project / name, tmp_path / name)
    before = digest_of_sources(tmp_path)
    assert digest_of_sources(tmp_path) == before
    (tmp_path / "runtime/run.py").write_text("pass")
    assert digest_of_sources(tmp_path) != before


def test_the_table_takes_the_place_between_its_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    cells = [Cell("read", "exit", "first"), Cell("read", "exit", "last")]
    results = {
        "read.exit.first": result("read.exit.first"),
        "read.exit.last": result("read.exit.last", problems=("bytes differ",)),
    }
    put_table(path, markdown(cells, results, ["said"]))
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\nsaid\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    row = "| `read` | `os._exit` | 0, 0, equal, none |  |  | **FAILED** 0, 0, equal, none |  |  |"
    assert row in text
    assert "- read.exit.last **FAILED**: bytes differ" in text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="no lines"):
        put_table(path, "x")


# --- real cells -----------------------------------------------------------------------------------


PAIRS = list(zip(NAMED_SETS["short"][::2], NAMED_SETS["short"][1::2], strict=True))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Return a matrix with the undisturbed run done, and its results."""
    file = ResultFile(tmp_path_factory.mktemp("matrix") / "results.jsonl", "these")
    matrix = Matrix(file, tmp_path_factory.mktemp("km"), "these", keep=False)
    matrix.run([PLAIN], jobs=1)
    return matrix, file.results


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_nothing_is_lost_or_changed_or_left_whoever_dies(matrix, pair, monkeypatch):
    # Two cells at a time on perhaps two cores: the tool by itself holds the promised 2 s.
    monkeypatch.setattr("tools.kill_judge.MOST_RECOVERY_S", 8.0)
    matrix, results = matrix
    matrix.run(chosen(pair), jobs=2)
    found = {cell: results[cell].problems for cell in pair}
    assert not any(found.values()), found
