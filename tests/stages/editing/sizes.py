"""Asks stages what they will write and take; run in a process of its own."""

import sys

from stages.base import Job
from stages.benchmark.facts import SampleFacts
from stages.editing import Edit, EncodePrompts


def print_sizes(weights):
    facts = SampleFacts(
        job=Job(input="", output="", work_dir=""),
        num_samples=1,
        max_source_bytes=300,
        max_instruction_bytes=9,
        sizes=((10, 10),),
    )
    edit, prompts = Edit(weights=weights), EncodePrompts(weights=weights)
    taken = [*(stage.footprint(facts, "cuda:0").weights_bytes > 0 for stage in (edit, prompts))]
    sys.stdout.write(f"{sum(taken)} {[*prompts.specs(facts)]} {[*edit.specs(facts)]} ")
