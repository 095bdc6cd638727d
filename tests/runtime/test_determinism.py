"""That results depend on nothing but the input; and that these tests could tell if they did."""

import pytest

from runtime.config import parse_config
from runtime.pipeline import Pipeline
from tests.hashing import ALL

NUM_ROWS, ROWS = 24, 4


@pytest.fixture
def hashes(tmp_path, numbers):
    """Run the hashing pipeline in a folder of its own; return the lines that it wrote."""

    def run(*, of="", rows=ROWS, killed_at=-1, inline=False, groups=(), replicas=1):
        stages = {
            "read": {"use": "tests.hashing:Rows", "with": {"rows": rows}},
            "hash": {
                "use": "tests.hashing:Hashes",
                "with": {"of": of, "killed_at": killed_at},
                "replicas": replicas,
            },
            "write": {"use": "tests.hashing:Hexes"},
        }
        config = parse_config({"pipeline": "hash", "stages": stages, "groups": groups})
        output = tmp_path / "out.txt"
        with Pipeline(config, inline=inline) as pipeline:
            number = len(list(tmp_path.glob("run.*")))
            pipeline.run(
                input=numbers(NUM_ROWS),
                output=output,
                overwrite=True,
                run_dir=tmp_path / f"run.{number}",
            )
        lines = output.read_text().splitlines()
        assert len(lines) == NUM_ROWS
        return lines

    return run


@pytest.mark.parametrize(
    "placement",
    [
        {"inline": True},
        {"groups": [["read", "hash"]]},
        {"groups": [["hash", "write"]]},
        {"replicas": 3},
    ],
    ids=str,
)
def test_no_placement_changes_anything_that_a_stage_sees(hashes, placement):
    assert hashes(of=ALL, **placement) == hashes(of=ALL)


@pytest.mark.parametrize("of", ["", "shape", "row", "neighbours", "attempt"])
def test_a_stage_that_depends_on_its_place_in_a_window_is_found_out(hashes, of):
    is_equal = hashes(of=of, rows=3, inline=True) == hashes(of=of, inline=True)
    assert is_equal is (of in ("", "attempt"))


def test_a_replayed_item_sees_the_same_but_for_its_attempt(hashes):
    of = ALL.removesuffix(" attempt")
    assert hashes(of=of, killed_at=2) == hashes(of=of)


def test_a_stage_that_depends_on_the_attempt_is_found_out(hashes):
    changed = [
        number
        for number, lines in enumerate(
            zip(hashes(of="attempt", killed_at=2), hashes(of="attempt"), strict=True)
        )
        if len(set(lines)) == 2
    ]
    assert set(range(2 * ROWS, 3 * ROWS)) <= set(changed) < set(range(NUM_ROWS))
