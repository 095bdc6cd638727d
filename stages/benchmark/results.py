"""What all verdicts of a run come to: `results.json`, and the same as a page of Markdown.

The names are an interface: others read these files. More may be added, none is ever changed. There
is no time of day in them: the same answers make the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from stages.benchmark.protocols import Protocol, Table
from stages.benchmark.statistics import CONFIDENCE, RESAMPLES, SEED, Summary
from stages.benchmark.verdicts import Verdict, counts

FORMAT = 1
SEED_RULE = "the first 63 bits of blake2b of run seed and sample id; noise is drawn on the CPU"

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """By what the scores came about; what two runs must share to be compared."""

    model: str
    model_revision: str
    judge: str
    judge_revision: str
    resize: str
    steps: int | None
    true_cfg_scale: float | None
    seed: int
    group_size: int
    more: Mapping[str, object] = field(default_factory=dict)


def results_of(
    rules: Protocol,
    setting: Setting,
    every: Sequence[Verdict],
    *,
    num_samples: int,
    lost: Sequence[str] = (),
) -> Json:
    """Return `results.json` as JSON has it.

    Args:
        rules: the protocol.
        setting: of the run.
        every: all verdicts, in the order in which they are to be told.
        num_samples: that were asked for; those beyond `every` are lost.
        lost: why whole groups could not even be read.
    """
    tables = rules.aggregate([each.row() for each in every])
    first = (
        tables[0]
        if tables
        else Table(name="all", overall_rule="", groups={}, overall={}, samples=())
    )
    best, worst = _extremes(first, rules.headline)
    return {
        "format": FORMAT,
        "metadata": _metadata(rules, setting),
        "counts": _counts(every, num_samples),
        "overall": _summaries(first.overall),
        "overall_rule": first.overall_rule,
        "categories": {name: _summaries(of) for name, of in first.groups.items()},
        "best_category": best,
        "worst_category": worst,
        "tables": [_table(each) for each in tables],
        "lost": list(lost),
        "unscored": [
            {"id": each.id, "category": each.group, "state": each.state, "reason": each.reason}
            for each in every
            if each.state != "scored"
        ],
        "samples": [asdict(each) for each in every],
    }


def _counts(every: Sequence[Verdict], num_samples: int) -> Json:
    by_state = {str(state): number for state, number in counts(every).items()}
    return {"samples": num_samples, **by_state, "lost": num_samples - len(every)}


def _metadata(rules: Protocol, setting: Setting) -> Json:
    return {
        "model": setting.model,
        "model_revision": setting.model_revision,
        "judge": setting.judge,
        "judge_revision": setting.judge_revision,
        "protocol": rules.name,
        "parser_version": f"{rules.name}-{rules.version}",
        "prompts_sha256": rules.prompts_sha256,
        "metrics": list(rules.metrics),
        "headline": rules.headline,
        "range": [rules.low, rules.high],
        "resize": setting.resize,
        "steps": setting.steps,
        "true_cfg_scale": setting.true_cfg_scale,
        "seed": setting.seed,
        "seed_rule": SEED_RULE,
        "judge_group_size": setting.group_size,
        "std": "of the scores, divided by n",
        "interval": f"{CONFIDENCE:.0%} percentile bootstrap of the mean, "
        f"{RESAMPLES} resamples, PCG64 seed {SEED}",
        **setting.more,
    }


def _table(table: Table) -> Json:
    return {
        "name": table.name,
        "overall_rule": table.overall_rule,
        "categories": {name: _summaries(of) for name, of in table.groups.items()},
        "overall": _summaries(table.overall),
        "samples": table.samples,
    }


def _summaries(metrics: Mapping[str, Summary]) -> Json:
    return {metric: asdict(summary) for metric, summary in metrics.items()}


def _extremes(table: Table, metric: str) -> tuple[Json | None, Json | None]:
    """Return best and worst category by mean; None where no category has one."""
    means = {name: of[metric].mean for name, of in table.groups.items()}
    known = sorted((mean, name) for name, mean in means.items() if mean is not None)
    if not known:
        return None, None
    (low, worst), (high, best) = known[0], known[-1]
    return {"category": best, "mean": high}, {"category": worst, "mean": low}
