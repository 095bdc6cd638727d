"""The schema that editors use is that of the code, and every shipped configuration names it."""

import json

import pytest

from runtime.config import CONFIGS, RunConfig, StageConfig, load_config
from runtime.schema import SCHEMA_NAME, config_schema

HEADER = f"# yaml-language-server: $schema={SCHEMA_NAME}\n"


def test_the_committed_schema_is_that_of_the_code():
    committed = (CONFIGS / SCHEMA_NAME).read_text()
    assert committed == config_schema(), "say `bin/runpipe schema > configs/schema.json`"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_names_the_schema(path):
    assert path.read_text().startswith(HEADER)
    assert load_config(path).stages


def test_every_key_is_explained():
    schema = json.loads(config_schema())
    described = {**schema["properties"], **schema["$defs"]["StageConfig"]["properties"]}
    described |= schema["$defs"]["RunConfig"]["properties"]
    bare = [name for name, key in described.items() if not {"description", "$ref"} & key.keys()]
    assert bare == []
    assert described.keys() >= {"pipeline", "stages", "gpus", "with", "seed", "strict"}


def test_editors_refuse_what_the_code_refuses():
    schema = json.loads(config_schema())
    assert schema["required"] == ["pipeline", "stages"]
    assert schema["$defs"]["StageConfig"]["required"] == ["use"]
    stages = schema["properties"]["stages"]
    closed = [
        schema,
        stages,
        *(schema["$defs"][model.__name__] for model in (RunConfig, StageConfig)),
    ]
    assert [part["additionalProperties"] for part in closed] == [False] * 4
    assert stages["minProperties"] == 2
