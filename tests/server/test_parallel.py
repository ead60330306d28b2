"""Several engines and several ranks on real server processes: they answer as one, and a death harms nobody else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.server.process import ServerProcess, serving
from tests.shelf import Shelf

ENGINE, RANK = "anydim.engine.worker", "anydim.engine.follower"
QUERY, DOCUMENTS = "what is a man eating?", ["a man is eating bread", "the capital of China", "a dog"]
GOOD = {"input": "hello"}


def processes(server: ServerProcess, module: str) -> list[psutil.Process]:
    server.line_with("Server running on")
    family = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in family if each.status() != psutil.STATUS_ZOMBIE and module in each.cmdline()]


def is_whole(server: ServerProcess) -> bool:
    status, answer = server.get("/ready")
    return status == 200 and answer["reason"] == ""


class Crowd:
    """Requests under way at once, each of many texts of its own."""

    def __init__(self, server: ServerProcess, count: int, texts: int, words: int = 60) -> None:
        self.answers: list[tuple[int, Any]] = []
        bodies = [{"input": [f"{n} {place} " + "word " * words for place in range(texts)]} for n in range(count)]
        self._threads = [threading.Thread(target=self._ask, args=(server, body)) for body in bodies]
        for thread in self._threads:
            thread.start()

    def _ask(self, server: ServerProcess, body: Any) -> None:
        self.answers.append(server.post("/v1/embeddings", body))

    def statuses(self) -> list[int]:
        """All statuses, once everyone is answered."""
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        return [status for status, _ in self.answers]


@pytest.fixture(scope="module")
def pair(minilm_folder: Path, shelf: Shelf) -> Iterator[ServerProcess]:
    """Two engines with an embedding model and a reranker each, behind two front ends."""
    flags = ("--dp", "2", "--http-workers", "2", "--reranker", shelf.folder("cross-bert"))
    with serving(minilm_folder, *flags, "--dtype", "float32", "--max-batch-tokens", "512") as server:
        yield server


def test_two_engines_share_the_work_and_tell_of_themselves(pair: ServerProcess) -> None:
    assert len(processes(pair, ENGINE)) == 2
    assert [engine["ready"] for engine in pair.get("/info")[1]["engines"]] == [True, True]
    single = pair.post("/v1/embeddings", {"input": ["0 0 " + "word " * 60]})[1]["data"][0]["embedding"]
    crowd = Crowd(pair, 6, 20)
    assert crowd.statuses() == [200] * 6
    firsts = [answer["data"][0]["embedding"] for _, answer in crowd.answers]
    assert any(np.allclose(single, first, atol=1e-5) for first in firsts)
    counts = pair.settled_metrics()
    texts = [counts[f'anydim_engine_texts_total{{engine="{place}"}}'] for place in range(2)]
    assert sum(texts) >= 120
    assert min(texts) > 0.25 * sum(texts)
    assert counts['anydim_engine_alive{engine="1"}'] == 1
    status, answer = pair.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS})
    assert status == 200
    assert len(answer["results"]) == 3


def test_a_killed_engine_costs_nobody_an_answer_while_the_other_serves(pair: ServerProcess) -> None:
    crowd = Crowd(pair, 8, 60, words=150)  # seconds of work
    pair.until(lambda: sum(v for n, v in pair.metrics().items() if n.startswith("anydim_engine_queued_tokens")) > 2000)
    processes(pair, ENGINE)[0].kill()
    pair.until(lambda: "1 of 2 engines" in pair.get("/ready")[1]["reason"])
    status, answer = pair.get("/ready")
    assert (status, answer["status"]) == (200, "ready")
    assert pair.get("/health")[0] == 200
    assert pair.post("/v1/embeddings", GOOD)[0] == 200
    assert crowd.statuses() == [200] * 8
    pair.until(lambda: all(is_whole(pair) for _ in range(4)))
    assert len(processes(pair, ENGINE)) == 2


def test_without_any_engine_the_server_is_not_ready_and_comes_back(pair: ServerProcess) -> None:
    for engine in processes(pair, ENGINE):
        engine.kill()
    pair.until(lambda: pair.get("/ready")[0] == 503)
    pair.until(lambda: all(is_whole(pair) for _ in range(4)))
    assert pair.post("/v1/embeddings", GOOD)[0] == 200


def test_a_stop_lets_both_engines_finish(minilm_folder: Path) -> None:
    with serving(minilm_folder, "--dp", "2", "--max-batch-tokens", "512") as server:
        family = processes(server, ENGINE)
        crowd = Crowd(server, 4, 100, words=100)
        server.until(lambda: all(each.cpu_percent(0.1) > 5 for each in family))
        assert server.stop() == 0
        assert crowd.statuses() == [200] * 4
        assert not any(each.is_running() for each in family)


def test_the_limit_of_the_queue_is_that_of_all_engines(minilm_folder: Path) -> None:
    flags = ("--dp", "2", "--max-queue-tokens", "3000", "--max-batch-tokens", "128")
    with serving(minilm_folder, *flags) as server:
        server.line_with("Server running on")
        statuses = Crowd(server, 14, 5).statuses()
    assert set(statuses) == {200, 429}


@pytest.fixture(scope="module")
def ranks(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One engine of two ranks, with an embedding model and a reranker."""
    temporary = tmp_path_factory.mktemp("ranks")
    flags = ("--tp", "2", "--device", "cpu", "--dtype", "float32", "--reranker", shelf.folder("reranker-tied"))
    with serving(shelf.folder("qwen3"), *flags, environment={"TMPDIR": str(temporary)}) as server:
        yield server
    assert list(temporary.iterdir()) == []


def test_two_ranks_answer_as_one_process_does(ranks: ServerProcess, shelf: Shelf) -> None:
    assert len(processes(ranks, ENGINE)) == len(processes(ranks, RANK)) == 1
    texts = ["a", *DOCUMENTS, "word " * 150, *(f"the same beginning of many texts, {place}" for place in range(40))]
    _, answer = ranks.post("/v1/embeddings", {"input": texts, "dimensions": 64})
    vectors = [row["embedding"] for row in answer["data"]]
    np.testing.assert_allclose(vectors, shelf.ours("qwen3").embed(texts, output_dim=64), atol=1e-5)
    _, answer = ranks.post("/embed_all", {"inputs": texts[1:3]})
    for rows, vector in zip(answer, vectors[1:3], strict=True):  # the last token's state is the text's
        np.testing.assert_allclose(rows[-1] / np.linalg.norm(rows[-1]), vector, atol=1e-5)
    _, answer = ranks.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "raw_scores": True})
    scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
    wanted = shelf.ours("reranker-tied").scores(QUERY, DOCUMENTS)[:, 0]
    np.testing.assert_allclose([scores[place] for place in range(3)], wanted, atol=1e-4)
    assert ranks.get("/info")[1]["device"] == "2 x cpu"


@pytest.mark.parametrize("module", [ENGINE, RANK])
def test_a_killed_rank_answers_everyone_and_all_come_back(ranks: ServerProcess, module: str) -> None:
    ranks.until(lambda: is_whole(ranks))
    before = [*processes(ranks, ENGINE), *processes(ranks, RANK)]
    crowd = Crowd(ranks, 3, 400, words=100)
    ranks.until(lambda: ranks.metrics().get("anydim_engine_queued_tokens", 0) > 2000)
    processes(ranks, module)[0].kill()
    ranks.until(lambda: ranks.get("/ready")[0] == 503)
    if module == RANK:
        ranks.until(lambda: "tensor-parallel rank 1 ended by signal SIGKILL" in ranks.get("/ready")[1]["reason"])
    assert set(crowd.statuses()) <= {200, 503}
    if module == RANK:
        ranks.until(lambda: "tensor-parallel rank 1 ended by signal SIGKILL" in ranks.output)
    ranks.until(lambda: is_whole(ranks))
    assert ranks.post("/v1/embeddings", GOOD)[0] == 200
    ranks.until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in before))


def test_a_rank_that_hangs_is_killed_with_its_engine(shelf: Shelf) -> None:
    flags = ("--tp", "2", "--device", "cpu", "--dtype", "float32", "--watchdog-timeout", "2")
    with serving(shelf.folder("qwen3"), *flags) as server:
        (rank,) = processes(server, RANK)
        rank.send_signal(signal.SIGSTOP)
        status, answer = server.post("/v1/embeddings", GOOD)
        assert status == 503
        assert "no progress for 2 seconds" in answer["error"]["message"]
        server.until(lambda: is_whole(server) and server.post("/v1/embeddings", GOOD)[0] == 200)
        server.until(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE)
        family = [*processes(server, ENGINE), *processes(server, RANK)]
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        server.until(lambda: not any(each.is_running() for each in family))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tp", "4"), "num_attention_heads 6, which 4 ranks cannot share equally; possible are 1, 2"),
        (("--dp", "2", "--device", "cuda"), "--device"),
    ],
)
def test_what_does_not_fit_ends_the_start_with_its_name(shelf: Shelf, flags: tuple[str, ...], words: str) -> None:
    with serving(shelf.folder("qwen3"), *flags) as server:
        assert server.process.wait(60) != 0
        server.stop()
        assert words in server.output
        assert "Traceback" not in server.output
