"""Few tokens run in the thread that brings them: the same answers, and Ctrl-C there loses nobody."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

import pytest

from anydim.engine.engine import Engine
from anydim.engine.lanes import Lane
from anydim.engine.loop import Loop
from anydim.engine.queue import Queue, Taken
from anydim.engine.work import Claim, Ticket, Work
from anydim.errors import ComputeFailed, Unavailable
from anydim.types import Batch, Output, Priority, Terms
from tests.engine.queues import limits
from tests.engine.test_engine import INTERRUPTING, LETHAL, POISON, RecordingRunner, item


def test_a_few_tokens_run_in_the_thread_that_brings_them_while_nothing_is_under_way() -> None:
    runner = RecordingRunner()
    with Engine(runner, limits(1000), tokens_here=4) as engine:
        assert engine.run([item(1, 2), item(3)])[1].values.tolist() == [3.0]
        assert runner.threads == [threading.get_ident()]
        engine.run([item(1, 2, 3, 4, 5)])
        engine.submit([item(1)]).result(30)
        assert threading.get_ident() not in runner.threads[1:]


def test_what_comes_while_a_batch_runs_here_is_answered_too() -> None:
    runner = RecordingRunner()
    runner.gate.clear()
    with Engine(runner, limits(1000), tokens_here=100) as engine, ThreadPoolExecutor(4) as pool:
        first = pool.submit(engine.run, [item(1)])
        others = [pool.submit(engine.run, [item(value)]) for value in (2, 3)]
        others.append(engine.submit([item(4)]))
        runner.gate.set()
        found = [future.result(30)[0].values.tolist() for future in (first, *others)]
    assert found == [[1.0], [2.0], [3.0], [4.0]]


def test_a_bad_input_that_runs_here_fails_alone() -> None:
    with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
        bad, good = engine.run([item(POISON), item(5)])
        assert isinstance(bad.error, ComputeFailed)
        assert good.values.tolist() == [5.0]


def test_a_lost_device_that_is_met_here_stops_the_engine() -> None:
    with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
        with pytest.raises(Unavailable):
            engine.run([item(LETHAL)])
        with pytest.raises(Unavailable):
            engine.run([item(1)])


def test_ctrl_c_while_a_batch_runs_here_leaves_an_engine_that_works() -> None:
    with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.run([item(INTERRUPTING)])
        assert engine.run([item(1)])[0].values.tolist() == [1.0]
        assert engine.submit([item(2)]).result(30)[0].values.tolist() == [2.0]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW])
def test_ctrl_c_while_a_batch_is_taken_here_loses_nobody(monkeypatch: pytest.MonkeyPatch, priority: Priority) -> None:
    def interrupted(queue: Queue, late: list[Ticket]) -> Taken:
        monkeypatch.undo()
        queue._choose(late)
        raise KeyboardInterrupt

    text = replace(item(1), terms=Terms(priority=priority))
    with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
        monkeypatch.setattr(Queue, "_choose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run([text])
        for each in (item(2), text):  # bulk work goes in slices behind short work, one at a time
            assert engine.submit([each]).result(30)[0].values.tolist() == [float(each.ids[0])]


def test_ctrl_c_while_answers_are_handed_out_here_tells_everyone_else(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Future[list[Output]]] = []

    class Joined(RecordingRunner):
        """While the first text runs another thread asks for the same."""

        def finish(self, flight: Batch) -> list[Output]:
            if not others:
                thread = threading.Thread(target=lambda: others.append(engine.submit([item(1)])))
                thread.start()
                thread.join()
            return super().finish(flight)

    def interrupted(queue: Queue, work: Work) -> list[Claim]:
        monkeypatch.undo()
        queue.settle(work)
        raise KeyboardInterrupt

    with Engine(Joined(), limits(1000), tokens_here=100) as engine:
        monkeypatch.setattr(Queue, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run([item(1)])
        with pytest.raises(Unavailable):
            others[0].result(30)
        assert engine.run([item(2)])[0].values.tolist() == [2.0]


def test_ctrl_c_while_a_text_is_queued_here_leaves_no_trace_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(lane: Lane, work: Work) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
        monkeypatch.setattr(Lane, "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run([item(1)])
        assert engine.submit([item(1)]).result(30)[0].values.tolist() == [1.0]


def hearing_points(function: Callable[..., Any]) -> list[tuple[CodeType, int]]:
    """The places of a function where the interpreter hears a signal: at its start, and behind every call."""
    code = list(dis.get_instructions(function))
    heard = [after for before, after in pairwise(code) if before.opname == "RESUME" or before.opname.startswith("CALL")]
    return [(function.__code__, each.offset) for each in heard]


@contextmanager
def ctrl_c_at(point: tuple[CodeType, int]) -> Iterator[None]:
    """An interrupt of this thread, the first time that it comes there."""

    def trace(frame: FrameType, event: str, found: Any) -> Any:
        frame.f_trace_opcodes = frame.f_code is point[0]
        if event == "opcode" and (frame.f_code, frame.f_lasti) == point:
            raise KeyboardInterrupt
        return trace if frame.f_trace_opcodes else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_ctrl_c_wherever_it_is_heard_while_a_text_runs_here_leaves_an_engine_that_works() -> None:
    met = 0
    for point in [*hearing_points(Loop.run_here), *hearing_points(Loop._step_alone)]:
        with Engine(RecordingRunner(), limits(1000), tokens_here=100) as engine:
            try:
                with ctrl_c_at(point):
                    engine.run([item(1)])
            except KeyboardInterrupt:
                met += 1
            assert engine.submit([item(1)]).result(30)[0].values.tolist() == [1.0]
            assert engine.run([item(2)])[0].values.tolist() == [2.0]
    assert met > 10


def test_nothing_runs_in_a_thread_that_computes_in_another_way() -> None:
    runner = RecordingRunner()
    with Engine(runner, limits(1000), tokens_here=100, may_run_here=lambda: False) as engine:
        assert engine.run([item(1)])[0].values.tolist() == [1.0]
    assert threading.get_ident() not in runner.threads
