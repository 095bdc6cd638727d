"""Whatever is in a configuration's file, it is loaded or answered in one line."""

import pytest

from runtime.config import load_config
from runtime.errors import ConfigError
from tests.hostile import cases
from tests.hostile.configs import Surface
from tests.hostile.corpus_files import CORPUS, corpus

KEPT = {
    "boolean_of_nothing.yaml": "broken value: ",
    "date_of_nothing.yaml": "broken value: ",
    "hexadecimal_without_end.yaml": "line 3, column 12: a number of 6002 characters",
    "key_of_two_lines.yaml": r"a\\nb: unknown key; known: ",
    "merged_without_end.yaml": r"end\.yaml: its aliases \(`\*name`\) make more than 20000 values",
    "number_of_nothing.yaml": "broken value: ",
    "number_to_base_60.yaml": "line 3, column 12: a number of 6001 characters",
    "pairs_without_end.yaml": "could not determine a constructor for the tag .*:pairs'",
    "runs_code.yaml": "could not determine a constructor for the tag .*python/object",
    "stage_with_line_end.yaml": "a stage name is made of a-z, 0-9 and _",
    "surrogate.yaml": "line 3, column 12: text with half a character",
}


@cases.seeds(short=200)
def test_every_configuration_loads_or_is_answered_in_one_line(tmp_path, first, number):
    assert cases.defects_of("configs", tmp_path, first, number) == []


@pytest.mark.parametrize("name", KEPT)
def test_what_once_was_too_much_is_answered(name, tmp_path):
    Surface(tmp_path).judge((corpus("configs")[name], []))
    with pytest.raises(ConfigError, match=KEPT[name]):
        load_config(CORPUS / "configs" / name)


def test_a_name_of_weights_that_is_too_long_for_a_file_is_a_name(tmp_path):
    Surface(tmp_path).judge((corpus("configs")["long_name_of_weights.yaml"], []))
    config = load_config(CORPUS / "configs/long_name_of_weights.yaml")
    assert config.model["weights"] == "z" * 300


def test_a_name_of_a_configuration_that_is_too_long_is_answered():
    with pytest.raises(ConfigError, match="zzz: File name too long"):
        load_config("z" * 300)


def test_as_many_workers_as_fill_the_memory_are_refused_before_they_are_planned(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text("pipeline: p\nstages: {a: {use: 'a:B', replicas: 1000000000}, b: {use: 'a:B'}}")
    with pytest.raises(ConfigError, match=r"a\.replicas: wanted less than 1025, found 1000000000"):
        load_config(path)


def test_a_number_that_no_message_holds_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(f"model: {{a: [{2**64 - 1}, {2**64}]}}")
    with pytest.raises(ConfigError, match=f"the number {2**64} has more than 64 bits"):
        load_config(path)


def test_what_has_more_values_than_a_configuration_is_refused_before_it_is_built(tmp_path):
    path = tmp_path / "many.yaml"
    path.write_text("a: [" + "1," * 20_000 + "]")
    with pytest.raises(ConfigError, match=r"many\.yaml: has more than 20000 values"):
        load_config(path)
