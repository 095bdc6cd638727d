"""From a configuration to workers that are ready for a job: describe, open, plan, load, prepare.

The same for worker processes and inline: a `Crew` is whoever answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ipc.messages import AnyMessage
from ipc.records import StageDescription, StageUse
from ipc.setup_messages import (
    Configure,
    Configured,
    Load,
    Loaded,
    OpenSource,
    Prepare,
    Prepared,
    SourceOpened,
    Specified,
    Specify,
)
from runtime.config import PipelineConfig
from runtime.config_errors import key_hint
from runtime.crew import ME, Crew, M
from runtime.errors import ConfigError, PlanError, RunpipeError
from runtime.host import Host
from runtime.hosted import pack
from runtime.plan import Plan, check_path, make_plan, plan_workers
from runtime.pools import give_up_gpu_pools
from runtime.reach import Pair, try_pairs
from runtime.worker_plan import WorkerPlan
from stages.base import Job

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A job whose input is open, and how it will run."""

    job: Job
    facts: bytes
    item_size: int
    unit: str
    num_units: int
    broken: str  # why the input is not whole; "" = it is
    plan: Plan
    needs: tuple[int, ...] = ()  # items of the section before that each item waits for
    untried: frozenset[Pair] = frozenset()  # that are to share GPU memory, as far as is known


def configure_question(config: PipelineConfig, worker: WorkerPlan) -> Configure:
    """Return what a worker is told of its stages."""
    uses = []
    for name in worker.stages:
        stage = config.stages[name]
        uses.append(
            StageUse(
                name=name,
                use=stage.use,
                defaults=pack(config.defaults),
                options=pack(dict(stage.options)),
            )
        )
    return Configure(**ME, stages=tuple(uses))


class Setup:
    """What is known of a pipeline's workers; `describe` first, `load` once, the rest per job."""

    def __init__(self, config: PipelineConfig, host: Host, crew: Crew) -> None:
        self._config, self._host, self._crew = config, host, crew
        self.workers: tuple[WorkerPlan, ...] = ()
        self.versions: dict[str, str] = {}
        self._descriptions: list[StageDescription] = []
        self._loaded = False
        self._has_prepared = False
        self._tried: set[Pair] = set()
        self._unreachable: dict[Pair, str] = {}  # -> why

    def describe(self) -> None:
        """Start the workers, once for all jobs; build the stages, check that they fit together.

        Raises:
            ConfigError: they do not, or not on this host.
        """
        if self.workers:
            return
        workers, self._warnings = plan_workers(self._config, self._host)
        self._refuse_if_strict(self._warnings)
        self._crew.start(workers)
        self.workers = workers
        configured = self._crew.ask(
            Configured,
            {worker.name: configure_question(self._config, worker) for worker in self.workers},
        )
        self._descriptions = [d for answer in configured.values() for d in answer.stages]
        check_path(tuple(self._config.stages), {d.name: d for d in self._descriptions})
        self._check_defaults()

    def _check_defaults(self) -> None:
        """Refuse a keyword of `model:` or `video:` that no stage knows: it would do nothing."""
        known = sorted({keyword for d in self._descriptions for keyword in d.accepts})
        config = self._config
        if config.has_sections:
            return  # another section's stages may take it
        for section, keywords in (("model", config.model), ("video", config.video)):
            for key in keywords:
                if key not in known:
                    hint = key_hint(key, known)
                    raise ConfigError(f"{section}.{key}: no stage takes it; {hint}")

    def open(self, job: Job, warnings: Iterable[str] = ()) -> OpenedJob:
        """Open the job's input and plan the run; nothing is loaded for it.

        Args:
            job: what is asked.
            warnings: what there is to say of this job already.

        Raises:
            ConfigError: the input is not as it must be, or the plan does not fit this host.
        """
        first = next(iter(self._config.stages))
        sources = [worker.name for worker in self.workers if first in worker.stages]
        question = OpenSource(**ME, job=pack(job))
        opened = self._crew.ask(SourceOpened, dict.fromkeys(sources, question))[sources[0]]
        _check_source(opened, job)
        specified = self._crew.ask(
            Specified,
            {
                worker.name: Specify(**ME, facts=opened.facts, device=self._crew.device(worker))
                for worker in self.workers
            },
        )
        plan = make_plan(
            self._config,
            self._host,
            self.workers,
            self._descriptions,
            list(dict.fromkeys(t for answer in specified.values() for t in answer.tensors)),
            memory={name: answer.memory for name, answer in specified.items()},
            num_items=opened.num_items,
            warnings=(*self._warnings, *opened.warnings, *warnings),
            unreachable=self._unreachable,
        )
        if self._crew.shares_gpu_memory:
            self._refuse_if_strict(plan.fallbacks)
        return OpenedJob(
            job=job,
            facts=opened.facts,
            item_size=opened.item_size,
            unit=opened.unit,
            num_units=opened.num_units,
            broken=opened.broken,
            plan=plan,
            needs=opened.needs,
            untried=frozenset(self._sharing(plan) - self._tried),
        )

    def load(self) -> None:
        """Read the weights, once for all jobs."""
        if self._loaded:
            return
        questions = {w.name: Load(**ME, device=self._crew.device(w)) for w in self.workers}
        for name, loaded in self._crew.ask(Loaded, questions).items():
            logger.info("loaded worker=%s load_s=%.1f", name, loaded.load_s)
            self.versions |= loaded.versions
        self._loaded = True

    def prepare(self, opened: OpenedJob) -> OpenedJob:
        """Make all workers ready, for smaller items where one cannot take items that large.

        Raises:
            PlanError: not even the smallest items fit, or `run.strict` asks for these.
        """
        warnings: list[str] = []
        opened = self._connect(opened)
        self._give_up_pools()
        while True:
            question = Prepare(**ME, facts=opened.facts, size=opened.item_size)
            size = min(answer.size for answer in self._ask_all(Prepared, question).values())
            if size >= opened.item_size:
                return opened
            if size < 1:
                raise PlanError(f"items of size {opened.item_size} do not fit, nor do smaller ones")
            warning = f"items of size {opened.item_size} do not fit into memory; {size} is taken"
            warnings.append(warning)
            self._refuse_if_strict(warnings)
            smaller = self.open(replace(opened.job, size=size), warnings)
            if smaller.item_size >= opened.item_size:
                raise PlanError(f"{warning}, and the source makes none so small")
            opened = smaller

    def _connect(self, opened: OpenedJob) -> OpenedJob:
        """Have all pairs of workers that are to share GPU memory try it; plan anew without these.

        An owner is a reader of its own, and may find that it cannot have a pool. What the driver
        says of its GPUs need not hold for two containers, or for parts of a GPU.
        """
        pairs = opened.untried
        if not pairs:
            return opened
        self._tried |= pairs
        failed = try_pairs(self._crew, pairs)
        if not failed:
            return opened
        self._unreachable |= failed
        return self.open(opened.job)

    def _sharing(self, plan: Plan) -> set[Pair]:
        """Return (owner, reader) of all pools on GPUs that are to be shared."""
        if not self._crew.shares_gpu_memory:
            return set()
        return {
            (pool.owner, worker.name)
            for worker in self.workers
            for pool in plan.pools_of(worker.name)
            if pool.gpu
        }

    def _give_up_pools(self) -> None:
        """Make room for what `prepare` takes: the last job's GPU pools are still there."""
        if self._has_prepared and self._crew.shares_gpu_memory:
            give_up_gpu_pools(self.workers, self._crew)
        self._has_prepared = True

    def _refuse_if_strict(self, warnings: Sequence[str]) -> None:
        if self._config.run.strict and warnings:
            raise PlanError(f"{'; '.join(warnings)}; refused, as --strict (`run.strict`) says")

    def _ask_all(self, kind: type[M], question: AnyMessage) -> dict[str, M]:
        return self._crew.ask(kind, {worker.name: question for worker in self.workers})


def _check_source(opened: SourceOpened, job: Job) -> None:
    if opened.num_items < 1:
        raise ConfigError(f"{job.input}: there is nothing in it to work on")
    needs = opened.needs
    if needs and (len(needs) != opened.num_items or list(needs) != sorted(needs)):
        raise RunpipeError(f"{opened.sender}: `needs` is not one rising number for each item")
