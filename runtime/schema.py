"""The JSON Schema of a configuration: what lets editors complete, explain and check one."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from runtime.config import PipelineConfig

SCHEMA_NAME = "schema.json"  # in configs/, for the header line of every file there
DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that all editors know


class _Generate(GenerateJsonSchema):
    """Leaves out the titles that pydantic would make of the names: editors show the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's own type
        return False


def config_schema() -> str:
    """Return the JSON Schema of configs/*.yaml as text."""
    schema = PipelineConfig.model_json_schema(schema_generator=_Generate)
    described = {"$schema": DRAFT, **schema, "title": "A configuration of runpipe"}
    return json.dumps(described, indent=2) + "\n"
