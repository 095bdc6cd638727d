"""Prompts that a section keeps, and the source that reads them beside their samples."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.base import Item, Job, UserError
from stages.editing.kept import ReadPrompts, SavePrompts

NUM_SAMPLES = 3


@pytest.fixture
def job(tmp_path, project):
    """A job of the sample set that comes along, in the section that keeps prompts."""
    (tmp_path / "prompts").mkdir()
    return Job(
        input=str(project / "configs/edit_score/samples.jsonl"),
        output=str(tmp_path / "prompts.jsonl"),
        work_dir=str(tmp_path / "prompts"),
        run_dir=str(tmp_path),
        seed=3,
    )


def reader(dtype="float32"):
    return ReadPrompts(weights="random:0:tiny", dtype=dtype, limit=NUM_SAMPLES, area=65536)


@pytest.fixture(params=["float32", "bfloat16"])
def kept(request, job):
    """Keep prompts of all samples but the second; return reader, facts and what was kept."""
    first = reader(request.param)
    facts = first.open(replace(job, earlier="nowhere"))  # writes the list of items, as ReadSamples
    sink = SavePrompts()
    sink.open(replace(facts, job=job))
    specs, written = first.specs(facts), {}
    for index, key in enumerate(first.keys()):
        tensors = {name: _random(specs[name], index) for name in ("prompt", "negative")}
        meta = _meta(first, key, tensors, index)
        failed = "no memory" if index == 1 else ""
        sink.write(Item(index=index, attempt=0, meta=meta, failed=failed), tensors, meta)
        written[key] = (tensors, meta)
    durable = sink.commit()
    assert [one.items for one in durable] == [(index,) for index in range(NUM_SAMPLES)]
    assert all((Path(job.work_dir) / name).is_file() for one in durable for name in one.files)
    sink.finish(range(NUM_SAMPLES))
    assert len(Path(job.output).read_text().splitlines()) == NUM_SAMPLES
    second = reader(request.param)
    again = replace(job, work_dir=str(Path(job.run_dir) / "edits"), earlier=job.work_dir)
    return second, second.open(again), written


def _random(spec, seed):
    generator = np.random.default_rng(seed)
    dtype = "uint16" if spec.dtype == "bfloat16" else spec.dtype
    return generator.integers(1, 2**15, spec.shape).astype(dtype)


def _meta(source, key, _tensors, index):
    outputs = {"source": np.zeros(2**20, np.uint8)}
    meta = super(ReadPrompts, source).read(key, outputs)
    return replace(meta, prompt_tokens=5 + index, negative_tokens=2)


def test_what_is_read_is_what_was_kept(kept):
    source, facts, written = kept
    specs = source.specs(facts)
    assert list(source.needs) == [1, 2, 3]
    for index, key in enumerate(source.keys()):
        outputs = {
            name: np.full(spec.shape, 7, "uint16" if spec.dtype == "bfloat16" else spec.dtype)
            for name, spec in specs.items()
        }
        if index == 1:
            with pytest.raises(UserError, match="no memory"):
                source.read(key, outputs)
            continue
        tensors, meta = written[key]
        assert source.read(key, outputs) == meta
        for name, count in (("prompt", 5 + index), ("negative", 2)):
            np.testing.assert_array_equal(outputs[name][:count], tensors[name][:count])
            assert not outputs[name][count:].any()
        assert outputs["source"].any()


def test_a_damaged_file_fails_its_sample_alone(kept):
    source, facts, _written = kept
    key = source.keys()[0]
    (path,) = Path(facts.job.earlier).glob(f"prompts/{key}*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    outputs = {
        name: np.zeros(spec.shape, "uint16" if spec.dtype == "bfloat16" else spec.dtype)
        for name, spec in source.specs(facts).items()
    }
    with pytest.raises(UserError, match="is damaged"):
        source.read(key, outputs)
    path.unlink()
    with pytest.raises(UserError, match="no prompt of it was kept"):
        source.read(key, outputs)
    source.read(source.keys()[2], outputs)


def test_no_section_before_it_is_refused(job):
    with pytest.raises(UserError, match="no section before this one keeps prompts"):
        reader().open(job)


def test_the_list_of_what_is_kept_names_samples(kept, job):
    source, _facts, _written = kept
    names = [json.loads(line)["id"] for line in Path(job.output).read_text().splitlines()]
    assert names == list(source.keys())
