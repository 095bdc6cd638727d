"""Every mistake in a configuration is answered in one line that says what to write instead."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.config import dump_config, load_config, parse_config
from runtime.errors import ConfigError

GOOD = """\
pipeline: interpolate
input: clip.mp4
output: out.mp4
model: {weights: "random:0", dtype: float32}
video: {pairs: 2}
stages:
  read: {use: "stages.video:ReadVideo"}
  denoise: {use: "stages.eden:Denoise", gpus: [0], with: {steps: [1, 2]}}
  decode: {use: "stages.eden:Decode", gpus: [0]}
  write: {use: "stages.video:WriteVideo", replicas: 2}
groups: [[denoise, decode]]
run: {seed: 7}
"""
STAGES = "{read: {use: 'stages.video:ReadVideo'}, next: {use: 'module:Class'}}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text, *overrides):
    path = Path("yaml/c.yaml")
    path.write_text(text)
    return load_config(path, overrides)


def refused(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpus", "gpu", "stages.denoise.gpu: unknown key; did you mean `gpus`?"),
        (
            "seed",
            "xyz",
            "run.xyz: unknown key; known: seed, window, hang_s, item_limit_s, stop_grace_s, "
            "threads, require, only, residency, trace, strict",
        ),
        ("video:", "vidio:", "vidio: unknown key; did you mean `video`?"),
        (
            "denoise: {use",
            "denoise: {us",
            "stages.denoise.us: unknown key; did you mean `use`? (and 1 more)",
        ),
        (
            "pipeline: interpolate",
            "",
            "pipeline: missing; give it, such as `pipeline: interpolate`",
        ),
        (
            '{use: "stages.video:ReadVideo"}',
            "{}",
            "stages.read.use: missing; give it, such as `use: 'stages.eden:Denoise'`",
        ),
        (
            "video:",
            "device_ids: [0]\nvideo:",
            "device_ids: unknown key; did you mean `gpus`, which each stage has of its own?",
        ),
        (
            "gpus: [0], with",
            "device_ids: [0], with",
            "stages.denoise.device_ids: unknown key; "
            "did you mean `gpus`, which each stage has of its own?",
        ),
        (
            "seed: 7",
            "batch_size: 7",
            "run.batch_size: unknown key; "
            "did you mean `video.pairs`, the frame pairs computed together?",
        ),
        (
            "run:",
            "use_batch_inference: true\nrun:",
            "use_batch_inference: unknown key; leave it out: batches are fixed by `video.pairs`",
        ),
        ("seed: 7", "strict: 1", "run.strict: wanted true or false, found 1"),
        ("  denoise:", "\tdenoise:", "line 8, column 1: a tab; YAML is indented with spaces"),
        (
            "  denoise:",
            " denoise:",
            "line 8, column 2: the indentation does not fit the lines above",
        ),
        (
            "clip.mp4",
            "a: b",
            "line 2, column 9: a `:` where none can be; put text that has one in quotes, "
            "or mend the indentation",
        ),
        (
            "clip.mp4",
            "@clip.mp4",
            "line 2, column 8: text that starts with a sign of YAML's own; put it in quotes",
        ),
        (
            "clip.mp4",
            "*clip",
            "line 2, column 8: an alias (`*name`) of nothing; "
            "put text that starts with * in quotes",
        ),
        ("model:", "---\nmodel:", "line 4, column 1: a second document; leave out the line `---`"),
        ("video: {", "video: &v {x: *v, ", "an alias (`*name`) stands inside of what it names"),
        ("seed: 7", "seed: seven", "run.seed: wanted a whole number, found the text 'seven'"),
        ("seed: 7", "seed: -1", "run.seed: wanted at least 0, found -1"),
        ("seed: 7", "hang_s: 0", "run.hang_s: wanted more than 0.0, found 0"),
        ("seed: 7", "hang_s: [1]", "run.hang_s: wanted a number, found a list"),
        (
            "seed: 7",
            "window: 0",
            "run.window: wanted `auto` or a whole number of at least 1, found 0",
        ),
        ("{seed: 7}", "", "run: wanted a mapping, found nothing"),
        (
            "replicas: 2",
            "replicas: yes",
            "stages.write.replicas: wanted a whole number, found true",
        ),
        ("gpus: [0], with", "gpus: 0, with", "stages.denoise.gpus: wanted a list, found 0"),
        (
            "gpus: [0], with",
            "gpus: [0, x], with",
            "stages.denoise.gpus.1: wanted a whole number, found the text 'x'",
        ),
        (
            "gpus: [0], with",
            "gpus: [0, 1], replicas: 2, with",
            "stages.denoise: gpus = [0, 1] already means 2 replicas; "
            "leave `replicas` out, or name a GPU more often",
        ),
        (
            "stages.video:ReadVideo",
            "stages.video.ReadVideo",
            'stages.read.use: wanted "module:Class", such as "stages.eden:Denoise", '
            "found 'stages.video.ReadVideo'",
        ),
        (
            "replicas: 2",
            "assign: fair",
            "stages.write.assign: wanted 'least_loaded' or 'round_robin', found the text 'fair'",
        ),
        (
            "read:",
            "Read:",
            "stages.Read: a stage name is made of a-z, 0-9 and _, and starts with a letter",
        ),
        ("out.mp4", "''", "output: is empty; leave the key out, or give it a value"),
        (
            "pairs: 2",
            "date: 2025-01-02",
            "video.date: wanted text, a number, true, false, a list or a mapping, "
            "found the date 2025-01-02; put it in quotes if it is text",
        ),
        ("pairs: 2", "2: 2", "video.2: wanted text, found 2"),
        ("pairs: 2", "a-b: 2", "video.a-b: not a keyword that a constructor could have"),
        ("pairs: 2", "dtype: x", "`dtype` stands in `model` and in `video`; leave one out"),
        ("pairs: 2", "pairs: 2, pairs: 3", "line 5, column 19: key `pairs` is written twice"),
        (
            "[[denoise, decode]]",
            "[[denoise, decod]]",
            "groups: no stage is named `decod`; did you mean `decode`?",
        ),
        (
            "[[denoise, decode]]",
            "[[denoise, decode], [decode, denoise]]",
            "groups: stage `decode` is named twice",
        ),
        ("[[denoise, decode]]", "[[read]]", "groups: ['read']: a group has two stages or more"),
        (
            "[[denoise, decode]]",
            "[[decode, write]]",
            "groups: ['decode', 'write'] share one worker, but decode has gpus [0] "
            "and write has 2 replicas",
        ),
        (
            "video: {pairs: 2}",
            "video: {pairs: 2",
            "line 6, column 7: while parsing a flow mapping expected ',' or '}', but got ':'",
        ),
        ("clip.mp4", "a\x01b", "line 2: the character #x0001 is not allowed"),
        ("pairs: 2", "x: 2025-13-41", "broken value: month must be in 1..12"),
        (
            "pairs: 2",
            "x: !!python/object/apply:os.system [ls]",
            "line 5, column 12: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line(here, old, new, message):
    assert old in GOOD
    assert refused(GOOD.replace(old, new, 1)) == f"yaml/c.yaml: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "is empty; start from a copy of configs/demo.yaml"),
        ("pipeline: p\n", f"stages: missing; give it, such as `stages: {STAGES}`"),
        ("- 1\n", "wanted a mapping with `pipeline` and `stages`, found [1]"),
        ("[" * 600 + "]" * 600, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_at_all_is_said(here, text, message):
    assert refused(text) == f"yaml/c.yaml: {message}"


def test_one_stage_is_no_pipeline(here):
    text = "pipeline: p\nstages: {read: {use: 'm:A'}}\n"
    assert "has a source, which is the first stage, and a sink" in refused(text)


def test_aliases_that_multiply_are_refused_at_once(here):
    lines = ["  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    text = GOOD.replace("video: {pairs: 2}", "\n".join(["video:", *lines]))
    assert refused(text) == "yaml/c.yaml: its aliases (`*name`) make more than 20000 values"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("videos.pairs=4", "videos: unknown key; did you mean `video`?"),
        ("stages.denoise.gpu=[0]", "stages.denoise.gpu: unknown key; did you mean `gpus`?"),
        ("stages.denois.gpus=[0]", "no stage is named `denois`; did you mean `denoise`?"),
        (
            "stages.write.replicas=x",
            "stages.write.replicas: wanted a whole number, found the text 'x'",
        ),
        ("video.pairs.x=3", "`video.pairs` is not a mapping"),
        ("stages=3", "stages: wanted a mapping, found 3"),
        ("pairs", "wanted KEY=VALUE, such as video.pairs=4"),
        ("=3", "wanted KEY=VALUE, such as video.pairs=4"),
        (
            "run.seed=[",
            "line 1, column 2: while parsing a flow node expected the node content, "
            "but found '<stream end>'",
        ),
    ],
)
def test_a_wrong_override_is_named(here, override, message):
    assert refused(GOOD, "run.seed=1", override) == f"--set {override}: {message}"


def test_a_mistake_of_the_file_is_not_put_down_to_an_override(here):
    assert refused(GOOD.replace("replicas", "replica"), "run.seed=1").startswith("yaml/c.yaml: ")


known = ["pipeline", "input", "model", "stages", "groups", "run", "use", "gpus", "with", "seed"]
keys = st.sampled_from(known)
yaml_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.dictionaries(keys, yaml_text))
def test_whatever_is_written_is_a_configuration_or_a_config_error(data):
    try:
        config = parse_config(data)
    except ConfigError as error:
        assert str(error).startswith("config: ")  # noqa: PT017
    else:
        assert dump_config(parse_config(yaml.safe_load(dump_config(config)))) == dump_config(config)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(GOOD)), junk=st.text(max_size=3))
def test_whatever_is_typed_into_a_file_is_answered(at, junk, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_text(GOOD[:at] + junk + GOOD[at + 1 :], encoding="utf-8", errors="ignore")
    try:
        load_config(path)
    except ConfigError as error:
        assert "junk.yaml" in str(error)  # noqa: PT017
