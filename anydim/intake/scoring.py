"""ScoreIntake: a ScoreRequest -> Items. Validate first, then tokenise.

Shared by HTTP and the library, so that both refuse the same things. It knows no HTTP, no engine and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anydim.config import ModelSettings
from anydim.errors import ConfigError, InvalidRequest, ModelError, NoInput
from anydim.intake.intake import Intake
from anydim.intake.pairs import Pairs, PromptedPairs, TextPairs, refuse_instruction
from anydim.intake.plain_text import PlainTokenizer
from anydim.intake.request import ScoreRequest
from anydim.intake.rerank_prompt import PROMPTS
from anydim.models.card import ModelCard
from anydim.models.scorer import Scorer
from anydim.types import Item


@dataclass(frozen=True, slots=True)
class ScoreIntake:
    """Everything that turns requests for one reranker or classifier into Items.

    Attributes:
        card: the model.
        scorer: how it scores.
        pairs: how it reads pairs.
        max_tokens: the longest pair, prompt and special tokens included.
        place: the model's place among the served ones.
    """

    card: ModelCard
    scorer: Scorer
    pairs: Pairs
    max_tokens: int
    place: int = 0

    @property
    def is_fast(self) -> bool:
        """Whether fastokens does the work."""
        return self.pairs.is_fast

    @classmethod
    def of(cls, card: ModelCard, settings: ModelSettings, place: int = 0) -> ScoreIntake:
        """Build the intake of one model.

        Raises:
            ConfigError: a setting does not fit the model, or it does not score.
            ModelError: the tokenizer is missing or broken.
        """
        if card.scorer is None:
            raise ConfigError(f"{card.name} is an embedding model; it cannot rerank")
        limit = card.max_tokens if settings.max_input_tokens is None else settings.max_input_tokens
        if not 0 < limit <= card.max_tokens:
            raise ConfigError(f"--max-input-tokens must be between 1 and {card.max_tokens}, got {limit}")
        pairs: Pairs
        if card.scorer.is_prompted:
            plain = PlainTokenizer(card.tokenizer_file, keep_ordinary=False)
            pairs = PromptedPairs(plain, limit, PROMPTS[settings.rerank_template], card.scorer.instruction)
        else:
            pairs = TextPairs(card.tokenizer_file, limit, card.lower_case)
        intake = cls(card, card.scorer, pairs, limit, place)
        intake._check_vocabulary()
        return intake

    def prepare(self, request: ScoreRequest) -> list[Item]:
        """Items of a request, one a document, in its order.

        Raises:
            InvalidRequest: a field is wrong.
            TooLong: a pair is too long and must not be cut, or the query leaves no room for a document.
        """
        return [item for chunk in self.chunks(request, len(request.documents)) for item in chunk]

    def chunks(self, request: ScoreRequest, size: int) -> Iterator[list[Item]]:
        """The same, ``size`` documents at a time, each tokenised when it is asked for.

        Raises:
            InvalidRequest: as ``prepare``; what holds for all documents is refused at once.
            TooLong: while iterating.
        """
        self._check(request)
        return (self._chunk(request, slice(start, start + size)) for start in range(0, len(request.documents), size))

    def _check(self, request: ScoreRequest) -> None:
        if not request.documents:
            raise NoInput(f"{request.field} must hold at least one text", request.field)
        count = None if request.queries is None else len(request.queries)
        if count not in (None, 1, len(request.documents)):
            raise InvalidRequest(f"there are {count} queries for {len(request.documents)} {request.field}", "query")
        if self.scorer.is_prompted and count is None:
            raise InvalidRequest(f"{self.card.name} scores pairs of query and document", request.field)
        if not self.scorer.is_prompted:
            refuse_instruction(request, self.card.name)
        most = request.max_document_tokens
        if most is not None and most < 1:
            raise InvalidRequest(f"max_tokens_per_doc must be at least 1, got {most}", "max_tokens_per_doc")

    def _check_vocabulary(self) -> None:
        """What stands around every pair must have embeddings."""
        [ids_T] = self.pairs.encode(ScoreRequest(queries=["a"], documents=["a"]), slice(0, 1))
        if ids_T.max() >= self.card.vocab_size:
            raise ModelError(
                f"{self.card.name}: its tokenizer gives ids up to {ids_T.max()} and config.json has "
                f"{self.card.vocab_size} tokens, so that it cannot read a reranking prompt"
            )

    def _chunk(self, request: ScoreRequest, part: slice) -> list[Item]:
        squash = self.scorer.squashes if request.squash is None else request.squash
        encoded = self.pairs.encode(request, part)
        for ids_T, field in zip(encoded, request.document_fields(part), strict=True):
            if ids_T.max() >= self.card.vocab_size:
                raise InvalidRequest(f"{field} has a token ({ids_T.max()}) that the model has no embedding for", field)
        return [
            Item(ids_T, len(self.scorer.labels), normalize=squash, terms=request.terms, model=self.place)
            for ids_T in encoded
        ]


def intake_of(card: ModelCard, settings: ModelSettings, place: int = 0) -> Intake | ScoreIntake:
    """The intake that a model needs: for texts, or for pairs where it scores.

    Raises:
        ConfigError, ModelError, MissingExtra: see both.
    """
    return (Intake if card.scorer is None else ScoreIntake).of(card, settings, place)
