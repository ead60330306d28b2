"""The shelf of checkpoints: each is built on first use, kept for the whole session, and loaded once each way.

It knows where checkpoints lie and how they are loaded; the tests know what must hold of them.
"""

from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch

from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3
from tests.pipeline import Pipeline
from tests.qwen_tokenizer import VOCAB_SIZE, write_qwen3_tokenizer
from tests.rerankers import CausalSpec, CrossSpec, write_cross_encoder, write_qwen3_reranker
from tests.vocabularies import write_bert, write_qwen_like, write_roberta, write_xlm_roberta

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QWEN3: Final = MappingProxyType(
    {
        "qwen3": Qwen3Spec(),
        "qwen3-prefixed": Qwen3Spec(prefixed=True),
        "qwen3-sharded": Qwen3Spec(shard_size="100KB"),
        "qwen3-prefixed-sharded": Qwen3Spec(prefixed=True, shard_size="100KB"),
        "qwen3-tied-head-stored": Qwen3Spec(lm_head="tied"),
        "qwen3-own-head": Qwen3Spec(lm_head="own"),
        "qwen3-bfloat16": Qwen3Spec(dtype=torch.bfloat16, layers=2),
        "qwen3-bias": Qwen3Spec(bias=True),
        "qwen3-5-to-1-heads": Qwen3Spec(width=72, heads=5, kv_heads=1, head_dim=8, theta=1e4),
        "qwen3-equal-heads": Qwen3Spec(width=40, heads=3, kv_heads=3, head_dim=32),
        "qwen3-one-layer": Qwen3Spec(layers=1),
        "qwen3-2560": Qwen3Spec(width=2560, layers=2, heads=4, kv_heads=2, head_dim=128, inner=128, scale=0.05),
        "qwen3-long": Qwen3Spec(width=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=48, positions=32768),
        "qwen3-real-vocabulary": Qwen3Spec(vocab=VOCAB_SIZE, width=48, heads=4, dtype=torch.bfloat16, layers=2),
    }
)
ENCODERS: Final = MappingProxyType(
    {
        f"{kind}-{pooling}": EncoderSpec(kind=kind, pooling=pooling, prefixed=pooling == "cls")
        for kind in ("bert", "roberta", "xlm-roberta")
        for pooling in ("mean", "cls", "max")
    }
    | {
        "bert-relu": EncoderSpec(activation="relu", layers=1),
        "bert-gelu-new": EncoderSpec(activation="gelu_new", width=36, heads=3),
    }
)
CHECKPOINTS: Final = (*QWEN3, *ENCODERS)
CAUSAL_RERANKERS: Final = MappingProxyType(
    {
        "reranker-tied": CausalSpec(),
        "reranker-tied-stored": CausalSpec(stored=True),
        "reranker-untied": CausalSpec(tied=False),
        "reranker-sharded": CausalSpec(tied=False, shard_size="20MB"),
        "reranker-converted": CausalSpec(labels=1),
    }
)
CROSS_ENCODERS: Final = MappingProxyType(
    {f"cross-{kind}": CrossSpec(kind=kind) for kind in ("bert", "roberta", "xlm-roberta")}
    | {f"cross-{kind}-3": CrossSpec(kind=kind, labels=3) for kind in ("bert", "roberta", "xlm-roberta")}
    | {"cross-bert-raw": CrossSpec(activation="Identity"), "cross-bert-sigmoid": CrossSpec(activation="Sigmoid")}
)


class Shelf:
    """Checkpoints by name, in one temporary folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = cache(self._build)
        self.tokenizer = cache(self._tokenize)
        self.ours = cache(self._load)
        self.reference = cache(self._load_reference)

    def _build(self, name: str) -> Path:
        folder = self._root / name
        if name in CAUSAL_RERANKERS:
            return write_qwen3_reranker(folder, CAUSAL_RERANKERS[name], self.tokenizer("qwen3-chat"))
        if name in CROSS_ENCODERS:
            return write_cross_encoder(folder, CROSS_ENCODERS[name], self.tokenizer(CROSS_ENCODERS[name].kind))
        if name in QWEN3:
            return write_qwen3(folder, QWEN3[name], self.tokenizer("qwen3" if "real" in name else "qwen-like"))
        return write_encoder(folder, ENCODERS[name], self.tokenizer(ENCODERS[name].kind))

    def _tokenize(self, kind: str) -> Path:
        write = {
            "qwen3": write_qwen3_tokenizer,
            "qwen3-chat": partial(write_qwen3_tokenizer, embedding=False),
            "qwen-like": write_qwen_like,
            "bert": write_bert,
            "roberta": write_roberta,
            "xlm-roberta": write_xlm_roberta,
        }[kind]
        return write(self._root / f"{kind}.json")

    def _load(self, name: str) -> Pipeline:
        return Pipeline(self.folder(name))

    def _load_reference(self, name: str) -> "SentenceTransformer":
        return load_reference(self.folder(name))


def load_reference(folder: Path) -> "SentenceTransformer":
    """The same folder in sentence-transformers, float32 on the CPU."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
