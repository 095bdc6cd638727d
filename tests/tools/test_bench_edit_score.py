"""What tools/bench_edit_score.py makes of runs and traces, and the tool from end to end, tiny."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from runtime.errors import RunpipeError
from tools import bench_edit_score
from tools.bench_edit_host import fake_run
from tools.bench_edit_kernels import MARK, PASS, Traced, _Event, kernels_of
from tools.bench_edit_parts import PARTS, Bench
from tools.bench_edit_plan import judge_bytes, predicted_s
from tools.bench_edit_runs import How, Run, Work, config_of
from tools.bench_edit_samples import read_set, write_set
from tools.bench_edit_score import HOST_PARTS, main, parts_by_default, run_parts, settings_of


def kernel(name, start, end, cat="kernel"):
    return _Event(name=name, cat=cat, ts=start, dur=end - start)


def test_passes_are_what_lies_between_marks_and_overlaps_count_once():
    events = [
        kernel("vae", 0, 100),
        kernel(MARK, 100, 101),
        kernel("gemm", 110, 210),
        kernel("beside it", 150, 230),
        kernel("copy", 110, 900, cat="gpu_memcpy"),
        kernel(f"void {MARK}(long)", 240, 241),
        kernel("norm", 250, 260),
        kernel(MARK, 300, 301),
        kernel("gemm", 301, 401),
        kernel(MARK, 401, 402),
        kernel("vae", 500, 600),
    ]
    found = kernels_of(events[::-1], Traced(kind="kernel", num_items=1))
    assert found.passes_s == pytest.approx(220e-6)
    assert found.kernels_s == pytest.approx(430e-6)
    assert found.span_s == pytest.approx(600e-6)
    assert (found.num_passes, found.num_kernels) == (2, 6)


def test_on_a_cpu_a_pass_is_a_range():
    events = [
        kernel("aten::mm", 0, 10, cat="cpu_op"),
        kernel(PASS, 20, 50, cat="user_annotation"),
        kernel("aten::mm", 25, 45, cat="cpu_op"),
        kernel("aten::t", 30, 40, cat="cpu_op"),
    ]
    found = kernels_of(events, Traced(kind="cpu_op", num_items=2))
    assert found.passes_s == pytest.approx(10e-6)
    assert found.kernels_s == pytest.approx(15e-6)


def test_a_trace_without_kernels_is_refused():
    with pytest.raises(RunpipeError, match=r"t.json: no event of the kind 'kernel'"):
        kernels_of([kernel("a", 0, 1, cat="cpu_op")], Traced(kind="kernel", num_items=1), "t.json")


def test_sets_have_the_samples_that_are_asked_for(tmp_path):
    samples = read_set(write_set(tmp_path / "a", 14, 64))
    assert len({one.id for one in samples}) == 14
    assert all(one.pixels().shape == (64, 64, 3) for one in samples)
    assert len({one.pixels().tobytes() for one in samples}) == 14
    counted = read_set(write_set(tmp_path / "b", 8, 32, counts=(1, 2, 3, 1, 1)))
    assert list(Counter(one.group for one in counted).values()) == [1, 2, 3, 1, 1]


def test_ours_is_the_shipped_configuration_on_so_many_gpus():
    config = config_of(Work(compiles=True), How(num_gpus=2, traced_group=1))
    for name in ("prompts", "edit", "score"):
        assert config.stages[name].gpus == (0, 1)
    assert config.stages["edit"].options["compile"] is True
    assert config.stages["score"].options["traced"] == 1
    assert config.stages["save"].replicas == 2, "as it is shipped"
    assert config.model["steps"] == 8
    assert config.groups == (("prompts", "edit"),)
    assert config.run.only is None
    on_cpu = config_of(Work(on_gpu=False), How(num_gpus=2, scores=False))
    assert (on_cpu.stages["edit"].gpus, on_cpu.stages["edit"].replicas) == ((), 2)
    assert on_cpu.run.only == "edits"


def test_times_of_a_run_are_from_its_stamps():
    run = Run(
        wall_s=9.0,
        load_s=2.0,
        began=[10.0, 12.0, 14.0],
        edited=[12.0, 14.0, 16.5],
        judged=[17.0],
        switch_s=0.0,
        gpu_peaks={},
    )
    assert (run.edits_s, run.work_s, run.per_edit_s) == (6.5, 7.0, 2.25)
    run.judged = []
    assert run.work_s == 6.5


@pytest.mark.parametrize("num_gpus", [1, 2])
def test_what_is_measured_by_default_fits_into_ten_minutes(num_gpus):
    settings = settings_of(tiny=False, num_gpus=num_gpus)
    parts = parts_by_default(num_gpus)
    assert sum(predicted_s(part, settings) for part in parts) < 570
    assert settings.work.passes == 8
    assert settings.long.passes == 50
    assert settings_of(tiny=False, num_gpus=1, cfg=True).long.passes == 100


def test_all_parts_are_measured_somewhere():
    every = {part for num in (0, 1, 2) for part in parts_by_default(num)}
    assert every == PARTS.keys() | HOST_PARTS.keys()


def test_the_judge_that_is_switched_to_has_its_published_size():
    assert judge_bytes(Work()) == 2 * 8_767_123_696


def test_parts_that_fail_or_do_not_fit_are_told_and_the_others_run(tmp_path, monkeypatch):
    def fails(bench):
        raise RunpipeError("no")

    parts = {"long": fails, "short": lambda bench: bench.add("a figure", 1.5, target=2.0)}
    monkeypatch.setattr(bench_edit_score, "PARTS", PARTS | parts)
    bench = Bench(settings_of(tiny=False, num_gpus=1), tmp_path)
    run_parts(bench, ("long", "serial", "short"), 250.0, None)
    run_parts(bench, ("serial",), 50.0, tmp_path / "out.json")
    run_parts(bench, ("short",), None, tmp_path / "out.json")
    notes = [one.note for one in bench.figures]
    assert notes[0] == "failed: no"
    assert bench.figures[0].verdict == "not measured"
    assert bench.figures[-1].verdict == "met"
    assert "left out: 108 s of 50" in notes
    assert json.loads((tmp_path / "out.json").read_text())["figures"][-1]["measured"] == 1.5


def test_a_part_that_is_none_and_a_host_without_gpus_are_refused(monkeypatch):
    answered = CliRunner().invoke(main, ["--parts", "lnog"])
    assert answered.exit_code == 2
    assert "no part is named lnog" in answered.output
    monkeypatch.setattr(bench_edit_score, "probe_host", lambda _root: type("H", (), {"gpus": ()}))
    answered = CliRunner().invoke(main, ["--parts", "long"])
    assert "this host has no GPU; say --tiny" in answered.output


@pytest.mark.slow
def test_editors_that_wait_share_the_work_evenly(tmp_path):
    samples = write_set(tmp_path / "set", 12, 32)
    rows = fake_run(tmp_path / "run", samples, replicas=3, took_s=0.25)
    of_each = Counter(row["what"] for row in rows if row["what"].startswith("by "))
    assert sorted(of_each.values()) == [4, 4, 4]
    assert sum(row["what"] == "edited" for row in rows) == 0, "the shipped sink is not ours"


@pytest.mark.nightly
@pytest.mark.parametrize("part", PARTS)
def test_each_part_measures_with_tiny_models(tmp_path, part):
    """The figures mean nothing there; that each is made, and of what, is what is tried."""
    path = tmp_path / "out.json"
    answered = CliRunner().invoke(main, ["--tiny", "--parts", part, "--json", str(path)])
    assert answered.exit_code == 0, answered.output
    record = json.loads(path.read_text())
    assert all(one["measured"] is not None for one in record["figures"]), answered.output
    assert record["details"]["parts"][part]["took_s"] > 0
    if part == "long":
        (kernels,) = record["details"]["long"]["edit_kernels"]
        assert kernels["num_passes"] == 3
        assert 0 < kernels["passes_s"] < kernels["kernels_s"] < kernels["span_s"]
