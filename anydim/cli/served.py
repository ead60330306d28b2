"""Served: from settings to the models of a server, as its front ends know them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anydim.api.models import Models, ServedModel
from anydim.config import Settings
from anydim.intake.scoring import intake_of
from anydim.models.card import ModelCard, read_card
from anydim.models.registry import find_model
from anydim.progress import progress_bar


def find_cards(settings: Settings, show_progress: bool) -> list[ModelCard]:
    """The card of each model, fetched or converted where necessary.

    Raises:
        ModelError: a model is not there, broken or not supported.
    """
    if not show_progress:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    with progress_bar("Preparing the model", show_progress) as progress:
        return [find_model(model, progress) for model in settings.models]


def read_cards(places: Sequence[tuple[str, str]], settings: Settings) -> list[ModelCard]:
    """The cards of models whose folders and names are known.

    Raises:
        ModelError: a folder is not there any more.
    """
    rows = zip(places, settings.models, strict=True)
    return [read_card(Path(folder), name, model.task) for (folder, name), model in rows]


def serve_models(cards: Sequence[ModelCard], settings: Settings) -> Models:
    """The models as front ends serve them.

    Raises:
        ConfigError: a setting does not fit its model.
        ModelError: a tokenizer is missing or broken.
        MissingExtra: a setting needs an optional package.
    """
    rows = enumerate(zip(cards, settings.models, strict=True))
    return Models(
        [
            ServedModel(intake=intake_of(card, model, place), aliases=model.served_model_name)
            for place, (card, model) in rows
        ]
    )
