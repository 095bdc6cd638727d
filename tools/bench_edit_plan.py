"""What tools/bench_edit_score.py measures and how much of it, and about how long that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stages.base import Job
from stages.benchmark.facts import GroupFacts
from stages.judging import Score
from tools.bench_edit_runs import Work

# What predictions are made of, seen on one H200; they are printed beside what was measured.
LOAD_S = 25.0  # from a start to the first item: imports, weights, a rehearsal
PASS_S = 0.431  # of the transformer, eager, at 1024x1024
EDIT_S = 0.35  # beside passes: prompts, VAE
GROUP_S = 1.5  # judging eight
SERIAL_S = 25.0  # moving both models to the GPU and back, each sample
PINNED_GB_PER_S = 50.0
SANDWICH = 3  # samples of the plain loop before our run, and as many after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and how much of it."""

    work: Work  # with few steps
    long_steps: int = 50
    long_cfg_scale: float = 1.0
    samples: int = 16  # with few steps, on one GPU
    long_samples: int = 4
    scaling_samples: int = 32
    one_gpu_samples: int = 16  # of scaling, on one GPU
    serial_samples: int = 2
    num_gpus: int = 1

    @property
    def long(self) -> Work:
        """The same with many steps, and all its samples in one judge group."""
        return replace(
            self.work,
            steps=self.long_steps,
            true_cfg_scale=self.long_cfg_scale,
            group_size=min(self.long_samples, self.work.group_size),
        )


def judge_bytes(work: Work) -> int:
    """Return what the judge's weights take."""
    side, job = 3 * work.side**2, Job(input="", output="", work_dir="")
    facts = GroupFacts(
        job=job,
        num_samples=1,
        group_size=1,
        max_source_bytes=side,
        max_edited_bytes=side,
        max_instruction_bytes=1,
    )
    judge = Score(weights=work.judge, protocol="origin", dtype=work.dtype)  # type: ignore[arg-type]
    return judge.footprint(facts, "cuda:0").weights_bytes


def predicted_s(part: str, settings: Settings) -> float:
    """Return about how long a part takes on H200s at 1024x1024, eager."""
    few = settings.work.passes * PASS_S + EDIT_S
    many = settings.long.passes * PASS_S + EDIT_S
    half = -(-settings.scaling_samples // settings.num_gpus)
    return {
        "long": 2 * LOAD_S + 2 * settings.long_samples * many + GROUP_S,
        "short": 3 * LOAD_S + (1.5 * settings.samples + 2 * SANDWICH + 1) * few + GROUP_S,
        "serial": 2 * LOAD_S + settings.serial_samples * (SERIAL_S + few),
        "switch": 2 * LOAD_S + 4,
        "scaling": 2 * LOAD_S + (settings.one_gpu_samples + half) * few + 2 * GROUP_S,
        "rivals": 2 * LOAD_S + half * few + 2 * GROUP_S,
    }[part]
