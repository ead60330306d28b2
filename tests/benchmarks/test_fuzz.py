"""The fuzzer's target, without the fuzzer: it knows every request, and finds a decoder that breaks."""

import random

import pytest

from anydim.errors import InvalidRequest
from benchmarks.fuzz import _SEEDS, decoders, try_one


def test_seeds_and_spoilt_seeds_break_no_decoder() -> None:
    choice, draw = decoders(), random.Random(1)
    names = [name for name, _ in choice]
    assert {"accept", "terms", "embeddings", "EmbeddingRequest", "EmbeddingRequest strict"} <= set(names)
    for place in range(len(choice)):
        for seed in _SEEDS:
            for _ in range(40):
                spoilt = bytearray(seed)
                for _ in range(draw.randrange(4)):
                    at = draw.randrange(len(spoilt))
                    spoilt[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
                    spoilt += draw.choice((b"", b"}", b"]", b'"'))
                try_one(choice, bytes([place]) + spoilt)


def test_a_decoder_that_breaks_is_found() -> None:
    def break_at_x(data: bytes) -> object:
        return {}[data] if b"x" in data else data

    def talk(data: bytes) -> object:
        raise InvalidRequest("a" * 3000)

    try_one([("breaks", break_at_x)], b"\0y")
    with pytest.raises(KeyError):
        try_one([("breaks", break_at_x)], b"\0x")
    with pytest.raises(AssertionError, match="3000 characters"):
        try_one([("talks", talk)], b"\0")
