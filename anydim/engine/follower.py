"""Follower: another rank of an engine, in a process of its own. It runs what the first rank tells it to, in step.

Run: by the first rank (ranks.py), as ``python -m anydim.engine.follower`` with one JSON line on standard input; it
lives as long as that input stays open. It reports on standard output when its part of the weights is in place. It knows
no queue, no waiters and no heads.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec
import torch

from anydim.engine.control import Kind, answer, receive
from anydim.engine.group import Group
from anydim.engine.load import load_rank
from anydim.engine.memory import bound_process
from anydim.engine.placing import ranks_device
from anydim.engine.ranks import Loaded, RankOrder, Report, group_timeout
from anydim.engine.runner import Runner
from anydim.engine.wire import Failed
from anydim.errors import AnydimError
from anydim.logs import configure_logs
from anydim.models.card import read_card
from anydim.models.shards import Shard

_LOG = logging.getLogger(__name__)


def main() -> None:
    """Run until the first rank says so, or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's to handle
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print to standard output must not speak for us
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankOrder)
    configure_logs(order.log_json)
    threading.Thread(target=_until_closed, daemon=True).start()
    try:
        runners, group = _load(order)
    except AnydimError as error:
        _say(report, Failed(error.kind, error.message))  # type: ignore[arg-type]
        os._exit(1)
    except torch.OutOfMemoryError as error:
        _say(report, Failed("config", f"the GPU's memory does not suffice: raise --mem-fraction-static ({error})"))
        os._exit(1)
    _say(report, Loaded())
    gc.collect()
    gc.freeze()
    try:
        _follow(socket.socket(fileno=order.line), runners, group)
    except EOFError:
        os._exit(0)
    except Exception:
        _LOG.exception("tensor-parallel rank %d stops", order.rank)
        os._exit(2)
    os._exit(0)


def _load(order: RankOrder) -> tuple[list[Runner], Group]:
    device = ranks_device(order.engine, order.rank)
    bound_process(device, order.engine.mem_fraction_static)
    group = Group(Path(order.store), order.rank, order.engine.tp, device, group_timeout(order.engine))
    shard = Shard(rank=order.rank, count=order.engine.tp, total=group.total)
    rows = [(read_card(Path(folder), name, model.task), model) for folder, name, model in order.models]
    return load_rank(rows, order.engine, device, shard), group


def _follow(line: socket.socket, runners: list[Runner], group: Group) -> None:
    while (word := receive(line)).kind is not Kind.END:
        if word.kind is Kind.JOIN:
            group.join()
        elif word.kind is Kind.CAPTURE:
            answer(line, _captures(runners[word.model], word.number))
        else:
            runners[word.model].follow(word)
    runners.clear()  # CUDA graphs that hold sums must go before the group does
    group.leave()


def _captures(runner: Runner, tokens: int) -> bool:
    """Whether a CUDA graph could be captured."""
    try:
        runner.add_graph(tokens)
    except Exception as error:
        _LOG.warning("a CUDA graph of %d tokens could not be captured: %s", tokens, error)
        return False
    return True


def _say(report: object, message: Report) -> None:
    print(msgspec.json.encode(message).decode(), file=report, flush=True)  # type: ignore[call-overload]


def _until_closed() -> None:
    while sys.stdin.buffer.readline():
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
