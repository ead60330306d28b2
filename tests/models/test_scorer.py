"""Which folders are rerankers, by their own files, and what they score with."""

from pathlib import Path

import pytest

from anydim.errors import ModelError
from anydim.models.card import read_card
from anydim.models.scorer import HeadKind
from anydim.types import Pooling
from tests.checkpoints import edit_json, write_json
from tests.qwen_tokenizer import write_qwen3_tokenizer
from tests.rerankers import CausalSpec, add_logit_score, write_qwen3_reranker
from tests.shelf import Shelf


@pytest.fixture
def folder(shelf: Shelf, tmp_path: Path) -> Path:
    return write_qwen3_reranker(tmp_path / "Qwen3-Reranker-0.6B", CausalSpec(width=16), shelf.tokenizer("qwen3-chat"))


def test_qwen3_rerankers_are_known_by_a_tokenizer_that_appends_nothing(folder: Path) -> None:
    card = read_card(folder)
    assert card.scorer is not None
    assert (card.scorer.head, card.scorer.answers, card.scorer.labels) == (HeadKind.YES_NO, (9693, 2152), ("yes",))
    assert card.scorer.is_prompted
    assert card.scorer.squashes
    assert card.pooling is Pooling.LAST
    assert "appends no token" in card.scorer.reason


def test_an_embedding_tokenizer_makes_an_embedding_model(folder: Path) -> None:
    write_qwen3_tokenizer(folder / "tokenizer.json", embedding=True)
    assert read_card(folder).scorer is None
    scorer = read_card(folder, task="rerank").scorer
    assert scorer is not None
    assert scorer.reason == "it was asked for"


def test_the_embedding_checkpoints_of_the_hub_stay_embedding_models(shelf: Shelf) -> None:
    for name in ("qwen3", "qwen3-prefixed", "qwen3-own-head", "qwen3-real-vocabulary", "bert-mean", "xlm-roberta-cls"):
        assert read_card(shelf.folder(name)).scorer is None


def test_a_folder_without_a_tokenizer_is_an_embedding_model(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert read_card(folder).scorer is None


def test_what_sentence_transformers_says_goes_first(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    assert read_card(folder).scorer is None
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    write_qwen3_tokenizer(folder / "tokenizer.json", embedding=True)
    assert read_card(folder).scorer is not None


def test_a_logit_score_module_names_its_tokens_and_the_default_prompt_is_the_instruction(folder: Path) -> None:
    add_logit_score(folder, prompts={"laws": "Find laws"}, default_prompt_name="laws")
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 7, "false_token_id": 9})
    scorer = read_card(folder).scorer
    assert scorer is not None
    assert (scorer.answers, scorer.instruction) == ((7, 9), "Find laws")
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 7})
    with pytest.raises(ModelError, match="false_token_id"):
        read_card(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_cross_encoders_are_known_by_their_architecture(shelf: Shelf, kind: str) -> None:
    card = read_card(shelf.folder(f"cross-{kind}"))
    assert card.scorer is not None
    assert (card.scorer.head, card.scorer.labels) == (HeadKind.DENSE, ("LABEL_0",))
    assert card.pooling is Pooling.CLS
    assert (card.scorer.separator is not None) is (kind == "bert")
    assert card.scorer.is_reranker
    several = read_card(shelf.folder(f"cross-{kind}-3")).scorer
    assert several is not None
    assert several.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert not several.is_reranker


def test_labels_have_their_names(shelf: Shelf, folder: Path) -> None:
    edit_json(folder / "config.json", architectures=["Qwen3ForSequenceClassification"], id2label={"1": "b", "0": "a"})
    scorer = read_card(folder).scorer
    assert scorer is not None
    assert (scorer.labels, scorer.head, scorer.is_prompted) == (("a", "b"), HeadKind.LINEAR, False)


def test_what_contradicts_the_files_is_refused(shelf: Shelf, folder: Path) -> None:
    with pytest.raises(ModelError, match="BertModel has no head that scores"):
        read_card(shelf.folder("bert-mean"), task="rerank")
    with pytest.raises(ModelError, match="gives no embeddings"):
        read_card(shelf.folder("cross-bert"), task="embed")
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"yes": 1}, "merges": []}}')
    with pytest.raises(ModelError, match="no is no single token"):
        read_card(folder)
