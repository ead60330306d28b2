"""Intake: an EmbedRequest -> Items. Validate first, then prompt, then tokenise.

Shared by HTTP and the library, so that both refuse the same things. It knows no HTTP, no engine and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from anydim.config import ModelSettings
from anydim.errors import ConfigError, InvalidRequest, NoInput
from anydim.intake.prompts import prefix_of
from anydim.intake.request import EmbedRequest, InputType
from anydim.intake.token_ids import TokenIdReader
from anydim.intake.tokenizer import TextTokenizer
from anydim.intake.validate import DimensionRule
from anydim.models.card import ModelCard
from anydim.types import Int32Array, Item


@dataclass(frozen=True, slots=True)
class Intake:
    """Everything that turns requests for one model into Items.

    Attributes:
        card: the model.
        rule: which dimensions it serves.
        tokenizer: its tokenizer.
        token_ids: how it reads token ids.
        place: the model's place among the served ones.
    """

    card: ModelCard
    rule: DimensionRule
    tokenizer: TextTokenizer
    token_ids: TokenIdReader
    place: int = 0

    @property
    def max_tokens(self) -> int:
        """The longest input, special tokens included."""
        return self.tokenizer.max_tokens

    @property
    def is_fast(self) -> bool:
        """Whether fastokens does the work."""
        return self.tokenizer.is_fast

    @classmethod
    def of(cls, card: ModelCard, settings: ModelSettings, place: int = 0) -> Intake:
        """Build the intake of one model.

        Raises:
            ConfigError: a setting does not fit the model.
            ModelError: the tokenizer is missing or broken.
            MissingExtra: a setting needs an optional package.
        """
        if card.scorer is not None:
            raise ConfigError(f"{card.name} is a reranker or classifier ({card.scorer.reason}); it gives no embeddings")
        limit = card.max_tokens if settings.max_input_tokens is None else settings.max_input_tokens
        if not 0 < limit <= card.max_tokens:
            raise ConfigError(f"--max-input-tokens must be between 1 and {card.max_tokens}, got {limit}")
        tokenizer = TextTokenizer(card.tokenizer_file, limit)
        if limit <= len(tokenizer.first) + len(tokenizer.last):
            raise ConfigError(f"--max-input-tokens {limit} leaves no room for text beside the special tokens")
        reader = TokenIdReader(settings.token_ids, tokenizer, card.vocab_size)
        rule = DimensionRule.of(card.width, settings.dim_step, settings.default_dim)
        return cls(card, rule, tokenizer, reader, place)

    def prepare(self, request: EmbedRequest) -> list[Item]:
        """Items of a request, in its order.

        Raises:
            InvalidRequest: a field is wrong; dimensions and prompts are refused before any tokenising.
            TooLong: a text is too long and must not be cut.
        """
        return [item for chunk in self.chunks(request, len(request.inputs)) for item in chunk]

    def chunks(self, request: EmbedRequest, size: int) -> Iterator[list[Item]]:
        """The same, ``size`` inputs at a time, each tokenised when it is asked for.

        Raises:
            InvalidRequest: as ``prepare``; dimensions and prompts are refused at once, for all inputs.
            TooLong: while iterating.
        """
        if not request.inputs:
            raise NoInput("input must hold at least one text", "input")
        rule = replace(self.rule, default=self.rule.width) if request.each_token else self.rule
        dims = rule.resolve(request.output_dim, request.dimensions, len(request.inputs))
        prefix = prefix_of(request, self.card)
        return (self._chunk(request, prefix, dims, start, size) for start in range(0, len(dims), size))

    def room(self, input_type: InputType) -> int:
        """How many tokens of text fit beside the prompt of an input type and the special tokens."""
        return self.tokenizer.room(prefix_of(EmbedRequest(inputs=[], input_type=input_type), self.card))

    def _chunk(self, request: EmbedRequest, prefix: str, dims: Sequence[int], start: int, size: int) -> list[Item]:
        encoded = self._encode(request, prefix, slice(start, start + size))
        for index, ids_T in enumerate(encoded, start):
            self._check(ids_T, index)
        return [
            Item(ids_T, dim, request.output_dtype, request.normalize, request.terms, self.place, request.each_token)
            for ids_T, dim in zip(encoded, dims[start:], strict=False)
        ]

    def _check(self, ids_T: Int32Array, index: int) -> None:
        """What tokenizers of some folders can do, and no model survives."""
        if not len(ids_T):
            raise InvalidRequest(f"input[{index}] holds no token", f"input[{index}]")
        if ids_T.max() >= self.card.vocab_size:
            raise InvalidRequest(
                f"input[{index}] spells out a token ({ids_T.max()}) that the model has no embedding for",
                f"input[{index}]",
            )

    def _encode(self, request: EmbedRequest, prefix: str, part: slice) -> list[Int32Array]:
        if isinstance(request.inputs[0], str):
            texts = cast(Sequence[str], request.inputs[part])
            if self.card.lower_case:
                texts, prefix = [text.lower() for text in texts], prefix.lower()
            return self.tokenizer.encode(texts, request.truncate, prefix, first=part.start)
        for name in ("instruction", "prompt_name", "input_type"):
            if getattr(request, name) is not None:
                raise InvalidRequest(f"{name} cannot be combined with token ids", name)
        ids = cast(Sequence[Sequence[int]], request.inputs[part])
        return self.token_ids.read(ids, request.truncate, first=part.start)
