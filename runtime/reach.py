"""Whether workers can read each other's GPU memory, tried and not assumed."""

from __future__ import annotations

from collections.abc import Collection

from ipc.records import PoolAddress
from ipc.setup_messages import MakePool, PoolMade, PoolsTried, TryPools
from runtime.crew import ME, Crew

PROBE_BYTES = 4096
Pair = tuple[str, str]  # (owner, reader)


def try_pairs(crew: Crew, pairs: Collection[Pair]) -> dict[Pair, str]:
    """Have each owner make a small pool and each of its readers read it; return why some cannot.

    An owner that is its own reader only makes it: no process opens its own pools.
    """
    questions = {
        owner: MakePool(**ME, pool=f"{owner}@probe", num_slots=1, slot_bytes=PROBE_BYTES)
        for owner in sorted({owner for owner, _reader in pairs})
    }
    made = crew.ask(PoolMade, questions)
    failed = {pair: made[pair[0]].error for pair in pairs if made[pair[0]].error}
    pools: dict[str, dict[str, PoolAddress]] = {}  # reader -> owner -> its pool
    for owner, reader in sorted(set(pairs) - set(failed)):
        if owner == reader:
            continue
        pools.setdefault(reader, {})[owner] = made[owner].address[0]
    tried = crew.ask(
        PoolsTried,
        {reader: TryPools(**ME, pools=tuple(found.values())) for reader, found in pools.items()},
    )
    for reader, found in pools.items():
        for owner, pool in found.items():
            if why := tried[reader].errors.get(pool.name):
                failed[owner, reader] = why
    return failed
