"""Which devices, threads and limits each engine of a server gets, on machines that are pretended."""

from __future__ import annotations

import pytest
import torch

from anydim.config import EngineSettings
from anydim.engine.placing import placed, rank_threads, ranks_device
from anydim.errors import ConfigError


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_engines_take_devices_one_after_another() -> None:
    two = EngineSettings(dp=2)
    assert [placed(two, place).device for place in range(2)] == ["cuda:0", "cuda:1"]
    later = EngineSettings(dp=3, device="cuda:1")
    assert [placed(later, place).device for place in range(3)] == ["cuda:1", "cuda:2", "cuda:3"]
    pairs = [placed(EngineSettings(dp=2, tp=2), place) for place in range(2)]
    assert [[str(ranks_device(pair, rank)) for rank in range(2)] for pair in pairs] == [
        ["cuda:0", "cuda:1"],
        ["cuda:2", "cuda:3"],
    ]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EngineSettings(dp=5), "--dp 5 needs 5 CUDA devices, and this machine shows 4"),
        (EngineSettings(tp=8), "--tp 8 needs 8 CUDA devices, and this machine shows 4"),
        (
            EngineSettings(dp=2, tp=2, device="cuda:1"),
            "--dp 2 with --tp 2 needs 4 CUDA devices from cuda:1 on, and this machine shows 4",
        ),
    ],
)
def test_too_few_devices_are_told_by_flag_and_number(settings: EngineSettings, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        placed(settings, 0)
    assert caught.value.message == words


def test_one_engine_is_left_as_it_is() -> None:
    settings = EngineSettings(device="cpu", threads=3)
    assert placed(settings, 0) is settings
    assert rank_threads(settings) == 3


def test_on_a_cpu_threads_are_shared_and_limits_divided() -> None:
    settings = EngineSettings(dp=3, tp=2, device="cpu", threads=12, max_queue_tokens=1000, vector_cache_mib=10)
    engines = [placed(settings, place) for place in range(3)]
    assert [engine.threads for engine in engines] == [4, 4, 4]
    assert [rank_threads(engine) for engine in engines] == [2, 2, 2]
    assert sum(engine.max_queue_tokens for engine in engines) in range(1000, 1003)
    assert sum(engine.vector_cache_mib for engine in engines) in range(10, 13)
    assert all(engine.dp == 1 and engine.device == "cpu" for engine in engines)
    assert placed(EngineSettings(dp=4, device="cpu", threads=2), 3).threads == 1
