"""The items of one job in one worker: taken, run into its slots, let go, passed on.

Everything here belongs to the worker's main thread. Of the items that are ready, the one furthest
along the path goes first, then the oldest; so a worker with several stages drains before it fills.

On a CPU a run is done when the stage returns. On a GPU it is queued then, a few runs may be under
way, and each is done when the worker's waiter says so: only then is anybody told.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ipc.errors import ProtocolError
from ipc.messages import ItemAdmitted, ItemReady, SlotFreed
from ipc.setup_messages import OpenJob
from runtime.border import Border
from runtime.hosted import Hosted
from runtime.item_queue import ItemQueue
from runtime.item_run import Helps, Run, as_ready
from runtime.ledger import Ledger
from runtime.memory import JobMemory
from runtime.meter import Meter
from runtime.outgoing import Outgoing, Send
from runtime.path import Identity, JobPath
from runtime.replay_side import ReplaySide
from runtime.sink_items import SinkItems
from runtime.trace import Recorder
from runtime.under_way import BEGINS, RUNS, UnderWay
from stages.base import Sink

if TYPE_CHECKING:  # a worker without a GPU imports nothing of it
    from runtime.gpu_queue import GpuQueue

logger = logging.getLogger(__name__)


class JobItems:
    """One open job. `admit`, `take` and `freed` bring messages in, `run_next` does the work."""

    def __init__(
        self,
        job: OpenJob,
        *,
        identity: Identity,
        hosted: Mapping[str, Hosted],
        ledger: Ledger,
        meter: Meter,
        trace: Recorder,
        send: Send,
        gpu: GpuQueue | None = None,
    ) -> None:
        self._identity, self._hosted = identity, hosted
        self._ledger, self._meter, self._trace = ledger, meter, trace
        self._send, self._gpu = send, gpu
        self._path = path = JobPath(job)
        self._queue = ItemQueue()
        ledger.open(job.window)
        self._note = UnderWay(job.under_way)
        self._border = Border(job, {name: stage.reads for name, stage in hosted.items()})
        self._memory = self._open_memory(job)
        self._outgoing = Outgoing(
            job,
            path,
            hosted,
            identity=identity,
            memory=self._memory,
            ledger=ledger,
            send=send,
            take=self.take,
        )
        self.replay = ReplaySide(
            job,
            identity=identity,
            memory=self._memory,
            outgoing=self._outgoing,
            ledger=ledger,
            send=send,
            border=self._border,
            under_way=lambda: [run.done for run in self._under_way],
            drop_old=self._queue.drop,
        )
        self._sink = SinkItems.of(job, path, hosted, identity=identity, ledger=ledger, send=send)
        self._helps = Helps(self._sink, ledger.tell, trace.part)
        self._under_way: deque[Run] = deque()  # the first one runs, the others are queued
        self._upstream = ", ".join(path.feeding(hosted)) or "the oldest item to be durable"
        last, nbytes = max(hosted, key=path.position), gpu.nbytes if gpu else 0
        transports = self._memory.transports()
        meter.start(job.job, identity["sender"], last, transports=transports, gpu_bytes=nbytes)
        self._idle_since = time.monotonic()

    def _open_memory(self, job: OpenJob) -> JobMemory:
        memory = JobMemory(
            self._identity["sender"],
            job.pools,
            job.owners,
            job.places,
            {stage.stage.library for stage in self._hosted.values()},
            self._gpu.pools if self._gpu else None,
        )
        if self._gpu is not None:
            self._gpu.make_ready(memory, self._hosted, self._trace)
        return memory

    def admit(self, message: ItemAdmitted) -> None:
        """Take an item at the start of its life."""
        self.take(as_ready(message, self._path.source))

    def take(self, ready: ItemReady) -> None:
        """Queue an item for the stage it names, unless this attempt of it counts no more.

        Raises:
            ProtocolError: it is none of ours, or here already.
        """
        if self.replay.is_old(ready.item, ready.attempt) or self.replay.is_of_the_dead(ready):
            return
        self._border.check(ready)
        item, attempt, position = ready.item, ready.attempt, self._path.position(ready.stage)
        self._ledger.take(item, attempt, position)
        if attempt and self._is_second_copy(ready):
            self._outgoing.let_go(ready.stage, self._hosted[ready.stage].reads, ready)
            return
        self._queue.put(position, ready)

    def _is_second_copy(self, ready: ItemReady) -> bool:
        """Whether the sink has the item already, and this is of a worker that was thought lost."""
        if self._sink is None or ready.stage != self._path.sink:
            return False
        return self._sink.has_taken(ready.item, ready.attempt)

    def owns(self, pool: str) -> bool:
        """Whether `pool` is one of this job's own pools here."""
        return self._memory.owns(pool)

    def freed(self, message: SlotFreed) -> None:
        """A reader let go of a slot of ours."""
        if not self.replay.is_old(message.item, message.attempt):
            self._outgoing.freed(message)

    def run_next(self) -> bool:
        """Run the item whose turn it is, or queue it on the GPU; False if nothing can be done."""
        ready = self._queue.first(self._is_turn)
        if ready is None or not self._has_room(self._hosted[ready.stage]):
            if not self._under_way:
                what, item = self._waits_for()
                self._ledger.wait(what if item < 0 else f"{what} {item}")
                self._trace.wait(what, item, self._idle_since)
            return False
        self._queue.take(self._path.position(ready.stage), ready)
        hosted = self._hosted[ready.stage]
        if ready.failed and not isinstance(hosted.stage, Sink):
            self._pass_on(hosted, ready, ready.failed)
            return True
        now = time.monotonic()
        self._meter.took(
            ready.sender,
            waited_s=0.0 if self._under_way else now - self._idle_since,
            nbytes=self._memory.nbytes(ready.handles, hosted.reads),
        )
        run = Run(hosted, ready)
        self._under_way.append(run)
        if len(self._under_way) == 1:
            self._begin(now)
        if self._gpu is not None and self._gpu.takes(hosted):
            self._queue_run(run)
        else:
            self._run_now(run)
            self._end()
        return True

    def end_done(self) -> None:
        """End the runs that the GPU has done.

        Raises:
            GpuLost: it has failed at one, and cannot be used any more.
            ProtocolError: there is none.
        """
        if self._gpu is None:
            raise ProtocolError("only a GPU worker is woken")
        for run in self._gpu.done():
            assert run is self._under_way[0], "one stream, one order"
            self._end()

    def _is_turn(self, ready: ItemReady) -> bool:
        """Whether the item can run: a sink takes its items in order, all others need slots.

        Only in the pools that the stage writes: who asked for more would wait for items that wait
        for this one. The window has a slot for every item in it, but the last `SlotFreed` of a
        finished item may still be on its way when the supervisor has admitted another for it.
        """
        if self._sink is not None and ready.stage == self._path.sink:
            return ready.item == self._sink.next_item()
        writes = () if ready.failed else self._hosted[ready.stage].writes
        return self._memory.can_lease(ready.item, ready.attempt, writes)

    def _has_room(self, hosted: Hosted) -> bool:
        """Whether a run can start now: what does not go to the GPU waits until that is done."""
        if self._gpu is not None and self._gpu.takes(hosted):
            return self._gpu.has_room(len(self._under_way))
        return not self._under_way

    def _waits_for(self) -> tuple[str, int]:
        """Return what would let this worker go on, for people; of one item only, which one."""
        if not self._queue:
            return self._upstream, -1
        if self._sink is not None and (item := self._sink.next_item()) is not None:
            return "item", item
        return "a free slot", -1

    # --- one run ----------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        """The first run under way begins: it is queued, or the one before it is done."""
        ready = self._under_way[0].done
        self._ledger.start(ready.item, ready.attempt)
        self._note.note(RUNS, ready.item, ready.attempt, self._path.position(ready.stage))
        self._meter.run(now)
        self._trace.run(ready.stage, ready.item, ready.attempt, now)
        self._began = now

    def _run_now(self, run: Run) -> None:
        """Run the stage; the run has failed if it raises."""
        hosted, ready = run.hosted, run.done
        try:
            written = self._memory.lease(ready.item, ready.attempt, hosted.writes, ready.handles)
            inputs = self._memory.views(ready.handles, hosted.reads, hosted.stage.library)
            outputs = self._memory.views(written, hosted.writes, hosted.stage.library)
            run.call(inputs, outputs, written, self._helps)
        except Exception as error:  # noqa: BLE001 - an item's failure is contained here
            run.failed = self._outgoing.report_failure(hosted.name, ready, error)

    def _queue_run(self, run: Run) -> None:
        """Have the stage queue its work between the copies in and out."""
        assert self._gpu is not None
        hosted, ready = run.hosted, run.done
        self._note.note(BEGINS, ready.item, ready.attempt, self._path.position(ready.stage))
        written = self._memory.lease(ready.item, ready.attempt, hosted.writes, ready.handles)
        queued = self._gpu.begin(hosted, ready.handles, written, item=ready.item)
        try:
            run.call(queued.inputs, queued.outputs, written, self._helps.for_queued())
        except Exception as error:  # noqa: BLE001 - an item's failure is contained here
            run.failed = self._outgoing.report_failure(hosted.name, ready, error)
        self._gpu.end(queued, run, failed=bool(run.failed))
        self._note.clear(BEGINS)
        if not run.failed and not queued.leaving and self._outgoing.stays(hosted.name):
            run.is_passed_on = True
            onward = self._outgoing.onward(hosted.name, run.done, failed="")
            self._queue.put(self._path.position(onward.stage), onward)

    def _end(self) -> None:
        """The first run under way is done: tell everyone, and begin the next one."""
        run = self._under_way.popleft()
        if self.replay.is_old(run.done.item, run.done.attempt):
            self.replay.tell_dropped()
        else:
            self._pass_on(run.hosted, run.done, run.failed or run.done.failed, run.is_passed_on)
        if isinstance(run.hosted.stage, Sink) and self._sink is not None:
            try:
                self._sink.commit()
            except Exception as error:  # noqa: BLE001 - a full disk, for one
                run.failed = self._outgoing.report_failure(run.hosted.name, run.done, error)
        self._ledger.stop()
        self._note.clear(RUNS)
        self._idle_since = now = time.monotonic()
        self._trace.ran(now, failed=bool(run.failed))
        self._meter.ran(run.hosted.name, now - self._began)
        done, took_s = run.done, now - self._began
        logger.debug("ran %s item=%d.%d took_s=%.4f", done.stage, done.item, done.attempt, took_s)
        if self._under_way:
            self._begin(now)

    def _pass_on(
        self, hosted: Hosted, done: ItemReady, failed: str, is_passed_on: bool = False
    ) -> None:
        """Let go of what the stage wrote and read, and send the item on."""
        if failed:
            self._memory.keep_for(done.item, done.attempt, done.handles)
        else:
            self._memory.written(done.item, done.attempt, hosted.writes)
        self._outgoing.let_go(hosted.name, hosted.reads, done)
        if is_passed_on:
            self._ledger.take(done.item, done.attempt, self._path.position(hosted.name) + 1)
        else:
            self._outgoing.pass_on(hosted.name, done, failed=failed)
        if done.attempt:
            self.replay.tell_passed(done)

    def close(self) -> None:
        """Let go of all pools, when what is queued on the GPU is done."""
        self._queue.clear()
        self._under_way.clear()
        self._ledger.clear()
        if self._gpu is not None:
            self._gpu.close()
        self._memory.close()
        self._note.close()
