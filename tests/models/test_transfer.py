"""Bytes of files arrive where they belong, whatever their order and precision; broken files are named."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.errors import ModelError
from anydim.models import transfer
from anydim.models.transfer import Piece

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda:0",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 bytes, so that small tensors take many."""
    monkeypatch.setattr(transfer, "_CHUNK_BYTES", 64)


def write(path: Path, tensors: list[torch.Tensor], gap: int = 3) -> list[int]:
    """The tensors' bytes one after another, with a gap before each; where each starts."""
    starts, content = [], b""
    for tensor in tensors:
        content += b"?" * gap
        starts.append(len(content))
        content += tensor.contiguous().view(torch.uint8).numpy().tobytes()
    path.write_bytes(content)
    return starts


@pytest.mark.parametrize("device", DEVICES)
@given(data=st.data())
def test_everything_arrives(tmp_path_factory: pytest.TempPathFactory, device: str, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=8))
    pairs = [(data.draw(st.sampled_from(PRECISIONS)), data.draw(st.sampled_from(PRECISIONS))) for _ in sizes]
    sources = [torch.randn(size).to(stored) for size, (stored, _) in zip(sizes, pairs, strict=True)]
    folder = tmp_path_factory.mktemp("files")
    half = len(sources) // 2
    starts = [*write(folder / "a", sources[:half]), *write(folder / "b", sources[half:])]
    targets = [
        torch.full((size,), 7.0, dtype=dtype, device=device) for size, (_, dtype) in zip(sizes, pairs, strict=True)
    ]
    pieces = [
        Piece(folder / ("a" if place < half else "b"), start, source.dtype, target)
        for place, (start, source, target) in enumerate(zip(starts, sources, targets, strict=True))
    ]
    counts: list[int] = []
    transfer.transfer(reversed(pieces), torch.device(device), counts.append)
    for source, target in zip(sources, targets, strict=True):
        assert torch.equal(target.cpu(), source.to(target.dtype))
    assert sum(counts) == sum(target.nbytes for target in targets)


def test_neighbours_are_left_alone(tmp_path: Path) -> None:
    source = torch.arange(300.0)
    (start,) = write(tmp_path / "file", [source])
    whole = torch.zeros(3, 300)
    transfer.transfer([Piece(tmp_path / "file", start, torch.float32, whole[1])], CPU, lambda _: None)
    assert whole.sum(dim=1).tolist() == [0, source.sum(), 0]


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    (start,) = write(tmp_path / "file", [torch.zeros(100)])
    with pytest.raises(ModelError, match=r"file is damaged \(it ends too early\)"):
        transfer.transfer([Piece(tmp_path / "file", start, torch.float32, torch.zeros(101))], CPU, lambda _: None)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="file cannot be read: No such file"):
        transfer.transfer([Piece(tmp_path / "file", 0, torch.float32, torch.zeros(9))], CPU, lambda _: None)


def test_ctrl_c_ends_all_lanes(tmp_path: Path) -> None:
    (start,) = write(tmp_path / "file", [torch.zeros(10_000)])

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer.transfer([Piece(tmp_path / "file", start, torch.float32, torch.zeros(10_000))], CPU, interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("anydim-read")]
