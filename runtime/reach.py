"""Whether workers can read each other's GPU memory, tried and not assumed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ipc.records import PoolAddress
from ipc.setup_messages import MakePool, PoolMade, PoolsTried, TryPools
from runtime.crew import ME, Crew, M, Questions
from runtime.errors import PlanError

PROBE_BYTES = 4096
ANSWER_S = 30.0  # after which a driver that makes or opens a pool is taken to hang
Pair = tuple[str, str]  # (owner, reader)


def try_pairs(crew: Crew, pairs: Collection[Pair]) -> dict[Pair, str]:
    """Have each owner make a small pool and each of its readers read it; return why some cannot.

    An owner that is its own reader only makes it: no process opens its own pools.

    Raises:
        PlanError: a driver hangs.
    """
    questions = {
        owner: MakePool(**ME, pool=f"{owner}@probe", num_slots=1, slot_bytes=PROBE_BYTES)
        for owner in sorted({owner for owner, _reader in pairs})
    }
    made = ask_for_pools(crew, questions)
    failed = {pair: made[pair[0]].error for pair in pairs if made[pair[0]].error}
    pools: dict[str, dict[str, PoolAddress]] = {}  # reader -> owner -> its pool
    for owner, reader in sorted(set(pairs) - set(failed)):
        if owner == reader:
            continue
        pools.setdefault(reader, {})[owner] = made[owner].address[0]
    tried = _ask(
        crew,
        PoolsTried,
        {reader: TryPools(**ME, pools=tuple(found.values())) for reader, found in pools.items()},
        lambda reader: (
            f"trying whether {reader} can read the GPU memory of {', '.join(pools[reader])}"
        ),
        "`run.require: host` does without, ",
    )
    for reader, found in pools.items():
        for owner, pool in found.items():
            if why := tried[reader].errors.get(pool.name):
                failed[owner, reader] = why
    return failed


def ask_for_pools(crew: Crew, questions: dict[str, MakePool]) -> dict[str, PoolMade]:
    """Have GPU workers make their pools.

    Raises:
        PlanError: a driver hangs.
    """
    return _ask(crew, PoolMade, questions, lambda owner: f"{owner}: making a pool on its GPU")


def _ask(
    crew: Crew, kind: type[M], questions: Questions, name: Callable[[str], str], way_out: str = ""
) -> dict[str, M]:
    """Ask for what is quick, unless a driver hangs; heartbeats go on meanwhile."""
    answers = crew.ask(kind, questions, ANSWER_S)
    for late in sorted(set(questions) - set(answers)):
        raise PlanError(
            f"{name(late)} takes more than {ANSWER_S:g} s; {way_out}"
            "`runpipe doctor` shows what works"
        )
    return answers
