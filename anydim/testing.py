"""FakeModel and FakeReranker: models whose answers can be checked by eye, run by the real engine; and an in-process
client around them.

No weights, no downloads, no server process: for the tests of code that calls anydim. A hidden state counts what was
read up to its token, so that pooling by the last token gives the counts of the whole text. See docs/testing.md.

Components, repeated where the model is wider than 64:
    0-25   letters a-z in either case          32-57  letters A-Z, upper case only
    26     digits                              58-63  . , ? ! - '  one component each
    27     white space
    28     other ASCII bytes
    29     bytes of other scripts (UTF-8)
    30     1 (the final special token)
    31     length in bytes

Legend: T tokens in the batch, R rows asked for, V token ids, K the 64 components, D width, B texts, L labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import Settings, load_settings
from anydim.engine.embedding import Embedding
from anydim.engine.engine import Engine
from anydim.engine.fleet import Fleet
from anydim.engine.forms import derive
from anydim.engine.forward import Task
from anydim.engine.handle import LocalEngine
from anydim.engine.limits import ModelLimits
from anydim.engine.load import batch_tokens, make_policy
from anydim.engine.runner import Runner
from anydim.engine.scoring import Scoring
from anydim.errors import MissingExtra
from anydim.intake.intake import Intake
from anydim.intake.scoring import intake_of
from anydim.models.card import Family, ModelCard
from anydim.models.packed import Packed
from anydim.models.scorer import HeadKind, Scorer
from anydim.types import Float32Array, Pooling

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

__all__ = ["END", "FakeModel", "FakeReranker", "app", "client", "engine", "intake"]

END: Final = "<|end|>"
_COMPONENTS: Final = 64
_MARKS: Final = b".,?!-'"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeModel:
    """What the fake model claims to be; its tokens are the bytes of the text and a final special token.

    Attributes:
        name: its id.
        width: components of its full vector.
        max_tokens: the longest input, the final token included.
        prompts: its prompts by name; `query` and `document` are what input_type chooses.
        default_prompt: the prompt of requests that name none, or None.
    """

    name: str = "anydim/fake"
    width: int = _COMPONENTS
    max_tokens: int = 8192
    prompts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"query": "query: ", "document": ""}))
    default_prompt: str | None = None

    def vector(self, text: str) -> Float32Array:
        """The vector (width,) of a text before it is cut and scaled: its counts."""
        ids = [*text.encode(), *_final_token()]
        counts_K = _additions()[ids].sum(axis=0, dtype=np.float32)
        return np.resize(counts_K, self.width).astype(np.float32)

    def card(self, folder: Path) -> ModelCard:
        """Its card, with the tokenizer written into ``folder``."""
        _tokenizer().save(str(folder / "tokenizer.json"))
        return ModelCard(
            name=self.name,
            folder=folder,
            family=Family.QWEN3,
            width=self.width,
            max_tokens=self.max_tokens,
            vocab_size=len(_additions()),
            pooling=Pooling.LAST,
            prompts=self.prompts,
            default_prompt=self.default_prompt,
            instruction_template="Instruct: {instruction}\nQuery:{text}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeReranker:
    """A reranker, or a classifier where it has several labels, on the same forward.

    The raw score of a label is how often its first character (a letter in either case, or one of . , ? ! - ') occurs
    in query and document together.

    Attributes:
        name: its id.
        labels: the names of its scores.
        max_tokens: the longest pair, the two final tokens included.
    """

    name: str = "anydim/fake-reranker"
    labels: tuple[str, ...] = ("!",)
    max_tokens: int = 8192

    @property
    def width(self) -> int:
        """Components of its states."""
        return _COMPONENTS

    def card(self, folder: Path) -> ModelCard:
        """Its card, with the tokenizer written into ``folder``."""
        scorer = Scorer(
            head=HeadKind.LINEAR, labels=self.labels, is_prompted=False, squashes=True, reason="the test says so"
        )
        return dataclasses.replace(
            FakeModel(name=self.name, max_tokens=self.max_tokens).card(folder),
            prompts=MappingProxyType({}),
            instruction_template=None,
            scorer=scorer,
        )

    def head(self, pooled_BD: Tensor) -> Tensor:
        """Raw scores (B, L) of states: the counts of each label's first character."""
        return pooled_BD[:, [_counted(label[0]) for label in self.labels]]


class Counting:
    """The forward of the fake model, as the runner calls it."""

    head_counts = (1, 1)
    takes_prefixes = False
    takes_dense = False

    def __init__(self, width: int) -> None:
        """A forward of any width."""
        self._table_VK = torch.from_numpy(_additions())
        self._width = width

    def products(self) -> tuple[()]:
        """None: it looks up and adds."""
        return ()

    def __call__(self, batch: Packed, rows_R: Tensor | None = None) -> Tensor:
        """Hidden states (R, D): the counts of each row's own text up to its token."""
        if rows_R is None:
            rows_R = torch.arange(len(batch.ids_T))
        rows_R = rows_R.long()
        counts_TK = self._table_VK[batch.ids_T.long()].cumsum(dim=0)
        starts_R = rows_R - batch.positions_T[rows_R].long()
        before_RK = torch.where(starts_R[:, None] > 0, counts_TK[starts_R - 1], 0.0)
        counts_RK = counts_TK[rows_R] - before_RK
        return counts_RK.repeat(1, -(-self._width // _COMPONENTS))[:, : self._width]


Fake = FakeModel | FakeReranker


def intake(model: FakeModel | None = None, **settings: Any) -> Intake:
    """What turns requests for the fake model into Items.

    Args:
        model: the fake model.
        settings: settings of config.py by name.

    Raises:
        ConfigError: an unknown or wrong setting.
    """
    return _intake(model or FakeModel(), load_settings(settings, {}))


@contextlib.contextmanager
def engine(model: FakeModel | None = None, **settings: Any) -> Iterator[LocalEngine]:
    """The real engine with the fake model, in this process; see ``intake`` for the arguments."""
    with _engine([model or FakeModel()], load_settings(settings, {})) as handle:
        yield handle


@contextlib.contextmanager
def app(model: Fake | None = None, *more: Fake, **settings: Any) -> Iterator[Starlette]:
    """The ASGI application of a server with fake models behind one engine; see ``intake`` for the arguments.

    Args:
        model: the first; the fake embedding model by default.
        more: further models beside it.
        settings: settings of config.py by name; --served-model-name is the first one's.
    """
    models, loaded = (model or FakeModel(), *more), load_settings(settings, {})
    with tempfile.TemporaryDirectory() as folder, _engine(models, loaded) as handle:
        served = []
        for place, each in enumerate(models):
            own = Path(folder) / str(place)
            own.mkdir()
            aliases = () if place else loaded.model.served_model_name
            served.append(ServedModel(intake=intake_of(each.card(own), loaded.model, place), aliases=aliases))
        yield create_app(Models(served), handle, loaded.server)


@contextlib.contextmanager
def client(model: Fake | None = None, *more: Fake, **settings: Any) -> Iterator[TestClient]:
    """An HTTP client of a server with the fake model, without a socket; see ``intake`` for the arguments.

    Its base address is http://testserver. It can be handed on as ``openai.OpenAI(http_client=...)``.

    Raises:
        MissingExtra: no HTTP client library is installed.
    """
    try:
        from starlette.testclient import TestClient
    except (ImportError, RuntimeError):
        raise MissingExtra("anydim.testing.client needs a package: pip install httpx2") from None
    with app(model, *more, **settings) as application, TestClient(application) as http:
        yield http


def _intake(model: FakeModel, settings: Settings) -> Intake:
    with tempfile.TemporaryDirectory() as folder:
        return Intake.of(model.card(Path(folder)), settings.model)


@contextlib.contextmanager
def _engine(models: Sequence[Fake], settings: Settings) -> Iterator[LocalEngine]:
    device = torch.device("cpu")
    runners = [Runner(Counting(model.width), _task(model, device), device, torch.float32) for model in models]
    tokens = batch_tokens(settings.engine, device)
    widths = [model.width if isinstance(model, FakeModel) else 0 for model in models]
    policy = dataclasses.replace(
        make_policy(settings.engine, device, tokens, widths[0]),
        models=tuple(ModelLimits(batch_tokens=tokens, raw_width=width) for width in widths),
    )
    with Engine(
        Fleet(runners), policy, 1, derive=derive, cache_bytes=settings.engine.vector_cache_mib << 20
    ) as running:
        yield LocalEngine(running)


def _task(model: Fake, device: torch.device) -> Task:
    if isinstance(model, FakeModel):
        return Embedding(Pooling.LAST, model.width, device)
    return Scoring(Pooling.LAST, len(model.labels), model.head)


def _final_token() -> tuple[int, ...]:
    return (256,)


def _additions() -> Float32Array:
    """What each token adds to the counts: float32 (V, K)."""
    table_VK = np.zeros((257, _COMPONENTS), np.float32)
    for byte in range(256):
        table_VK[byte, _component(byte)] = 1
        table_VK[byte, 31] = 1
        if 65 <= byte <= 90:
            table_VK[byte, 32 + byte - 65] = 1
        if byte in _MARKS:
            table_VK[byte, 58 + _MARKS.index(byte)] = 1
    table_VK[256, 30] = 1
    return table_VK


def _counted(character: str) -> int:
    """The component that counts one character alone."""
    mark = _MARKS.find(character.encode())
    return 58 + mark if mark >= 0 else _component(ord(character))


def _component(byte: int) -> int:
    character = chr(byte)
    if byte >= 128:
        return 29
    if character.isalpha():
        return ord(character.lower()) - ord("a")
    if character.isdigit():
        return 26
    return 27 if character in " \t\n\r\v\f" else 28


def _tokenizer() -> Tokenizer:
    """One token a byte, and the final special token behind each text."""
    letters = _byte_letters()
    tokenizer = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 256)]
    )
    return tokenizer


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte (GPT-2's alphabet of byte-level BPE)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]
