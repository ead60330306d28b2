"""Scores = those of transformers and of sentence-transformers' CrossEncoder on the same files, in float32.

The bound is 1e-4; the references read one pair at a time, so that no padding of theirs is in the comparison.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from anydim.engine.load import make_task
from anydim.engine.runner import Runner
from anydim.types import Item
from tests.checkpoints import edit_json, write_json
from tests.intake.test_pairs import SEARCH, joined
from tests.numerics.test_prefixes import tokens_run
from tests.pipeline import CPU, Pipeline
from tests.rerankers import CausalSpec, CrossSpec, add_logit_score, write_cross_encoder, write_qwen3_reranker
from tests.shelf import CAUSAL_RERANKERS, CROSS_ENCODERS, Shelf
from tests.texts import EDGES, LONG, SENTENCES

BOUND = 1e-4
QUERY = "What is the capital of China?"
DOCUMENTS = (*SENTENCES, *EDGES[:-1], LONG[:1500])
Scores = NDArray[np.float32]
Causal = Callable[[Path], Pipeline]


@pytest.fixture(scope="module")
def chat(shelf: Shelf) -> Any:
    """The rerankers' one tokenizer in transformers."""
    return AutoTokenizer.from_pretrained(shelf.folder("reranker-tied"))


@pytest.fixture(scope="module")
def causal(shelf: Shelf) -> Causal:
    """A Qwen3 reranker in anydim; all of them have one tokenizer, which is read once."""
    first = shelf.ours("reranker-tied")

    def load(folder: Path) -> Pipeline:
        ours = Pipeline(folder)
        assert ours.card.scorer is not None
        ours.score_intake = replace(first.score_intake, card=ours.card, scorer=ours.card.scorer)
        return ours

    return load


@torch.inference_mode()
def expected(folder: Path, tokenizer: Any, query: str, documents: Sequence[str]) -> Scores:
    """transformers' raw scores of prompts, one at a time: (documents, 1)."""
    texts = [tokenizer(joined(SEARCH, query, document), return_tensors="pt") for document in documents]
    if "ForCausalLM" in (folder / "config.json").read_text():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        logits = torch.stack([model(**text).logits[0, -1] for text in texts])
        return np.asarray(logits[:, 9693] - logits[:, 2152])[:, None]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return np.concatenate([model(**text).logits.numpy() for text in texts])


def cross_encoder(folder: Path, documents: Sequence[str], raw: bool) -> Scores:
    """sentence-transformers' scores: (documents, labels)."""
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    how = {"activation_fn": torch.nn.Identity()} if raw else {}
    found = model.predict([(QUERY, document) for document in documents], batch_size=1, show_progress_bar=False, **how)
    return np.asarray(found).reshape(len(documents), -1)


def sigmoid(logits: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


@pytest.mark.parametrize("name", CAUSAL_RERANKERS)
def test_qwen3_rerankers(shelf: Shelf, chat: Any, causal: Causal, name: str) -> None:
    wanted, ours = expected(shelf.folder(name), chat, QUERY, DOCUMENTS), causal(shelf.folder(name))
    assert np.std(wanted) > 0.01  # the documents are told apart
    assert np.abs(ours.scores(QUERY, DOCUMENTS) - wanted).max() <= BOUND
    assert np.abs(ours.scores(QUERY, DOCUMENTS, raw=False) - sigmoid(wanted)).max() <= BOUND


def test_tied_and_untied_heads_differ(shelf: Shelf, causal: Causal) -> None:
    """Otherwise reading the wrong matrix would not show."""
    names = ("reranker-tied", "reranker-untied")
    tied, untied = (causal(shelf.folder(name)).scores(QUERY, DOCUMENTS) for name in names)
    assert np.abs(tied - untied).max() > 0.1


def test_the_conversion_of_a_causal_checkpoint_scores_alike(shelf: Shelf, causal: Causal, tmp_path: Path) -> None:
    """As conversions on the hub are made: the one row of the score head is yes less no."""
    original = AutoModelForCausalLM.from_pretrained(shelf.folder("reranker-untied"), dtype=torch.float32)
    folder = write_qwen3_reranker(tmp_path / "converted", CausalSpec(labels=1), shelf.tokenizer("qwen3-chat"))
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.model.load_state_dict(original.model.state_dict())
    model.score.weight.data = (original.lm_head.weight[9693] - original.lm_head.weight[2152])[None]
    model.save_pretrained(folder)
    wanted = causal(shelf.folder("reranker-untied")).scores(QUERY, DOCUMENTS)
    assert np.abs(causal(folder).scores(QUERY, DOCUMENTS) - wanted).max() <= BOUND


def test_the_layout_of_sentence_transformers(shelf: Shelf, chat: Any, causal: Causal, tmp_path: Path) -> None:
    """A folder with a LogitScore module and a chat template scores as CrossEncoder scores it."""
    folder = write_qwen3_reranker(tmp_path / "logit-score", CausalSpec(), shelf.tokenizer("qwen3-chat"))
    add_logit_score(folder)
    write_json(folder / "sentence_bert_config.json", TRANSFORMER)
    query, document = (f"{{{{ messages | {SELECT % role} }}}}" for role in ("query", "document"))
    edit_json(
        folder / "tokenizer_config.json", chat_template=joined(SEARCH, query, document).rstrip("\n") + "{{ '\n\n' }}"
    )
    wanted = cross_encoder(folder, SENTENCES, raw=True)
    assert np.abs(wanted - expected(folder, chat, QUERY, SENTENCES)).max() <= BOUND
    assert np.abs(causal(folder).scores(QUERY, SENTENCES) - wanted).max() <= BOUND


SELECT = "selectattr('role', 'eq', '%s') | map(attribute='content') | first"
TRANSFORMER = {
    "transformer_task": "text-generation",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "causal_logits",
}


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_cross_encoders(shelf: Shelf, name: str) -> None:
    raw = cross_encoder(shelf.folder(name), DOCUMENTS, raw=True)
    assert np.std(raw) > 0.01
    assert np.abs(shelf.ours(name).scores(QUERY, DOCUMENTS) - raw).max() <= BOUND


@pytest.mark.parametrize("name", [name for name in CROSS_ENCODERS if not name.endswith("-3")])
def test_the_folders_own_activation_is_the_default(shelf: Shelf, name: str) -> None:
    scorer = shelf.ours(name).card.scorer
    assert scorer is not None
    ours = shelf.ours(name).scores(QUERY, DOCUMENTS, raw=not scorer.squashes)
    assert np.abs(ours - cross_encoder(shelf.folder(name), DOCUMENTS, raw=False)).max() <= BOUND
    assert scorer.squashes is (name != "cross-bert-raw")


@pytest.mark.parametrize("name", ["cross-bert-3", "cross-roberta-3"])
def test_several_labels_become_probabilities(shelf: Shelf, name: str) -> None:
    ours = shelf.ours(name).scores(QUERY, DOCUMENTS, raw=False)
    wanted = torch.softmax(torch.from_numpy(shelf.ours(name).scores(QUERY, DOCUMENTS)), 1).numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["cross-bert", "cross-bert-3", "cross-xlm-roberta-3"])
@torch.inference_mode()
def test_texts_alone(shelf: Shelf, name: str) -> None:
    """A classifier reads one text; all its tokens are of the first type."""
    from anydim.intake.request import ScoreRequest

    model = AutoModelForSequenceClassification.from_pretrained(shelf.folder(name), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(shelf.folder(name))
    wanted = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in SENTENCES]
    ours = shelf.ours(name)
    items = ours.score_intake.prepare(ScoreRequest(queries=None, documents=SENTENCES, squash=False))
    assert np.abs(ours.stack(ours.run(items)) - np.stack(wanted)).max() <= BOUND


def test_bert_post_processors_of_the_older_kind(shelf: Shelf, tmp_path: Path) -> None:
    """BertProcessing names its separator where TemplateProcessing has a template."""
    folder = write_cross_encoder(tmp_path / "older", CrossSpec(), shelf.tokenizer("bert"))
    edit_json(
        folder / "tokenizer.json", post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    )
    ours = Pipeline(folder).scores(QUERY, DOCUMENTS)
    assert np.abs(ours - shelf.ours("cross-bert").scores(QUERY, DOCUMENTS)).max() <= BOUND


@pytest.mark.parametrize("name", ["reranker-tied", "cross-bert", "cross-roberta"])
def test_a_score_does_not_depend_on_its_batch(shelf: Shelf, name: str) -> None:
    together = shelf.ours(name).scores(QUERY, DOCUMENTS)
    alone = np.concatenate([shelf.ours(name).scores(QUERY, [document]) for document in DOCUMENTS])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize("name", ["reranker-tied", "reranker-converted"])
def test_prompt_and_query_are_computed_once(shelf: Shelf, causal: Causal, name: str) -> None:
    ours = causal(shelf.folder(name))
    documents = [f"{place} documents of their own" for place in range(20)]
    with tokens_run(ours) as seen:
        shared = ours.scores(QUERY, documents)
    items = ours.score_intake.prepare(_request(documents))
    lengths = [len(item.ids) for item in items]
    common = next(n for n in range(min(lengths)) if len({int(item.ids[n]) for item in items}) > 1)
    assert common > 60  # system prompt, instruction and query
    assert common + sum(lengths) - common * len(items) >= seen[0]  # some begin alike beyond the query
    assert seen[0] < sum(lengths) / 2
    task = make_task(ours.card, ours.settings, CPU)
    plain = Runner(ours.model, task, CPU, torch.float32, share_prefixes=False)
    assert np.abs(_run(plain, items) - shared).max() <= 1e-5


@pytest.mark.parametrize("name", ["reranker-tied", "cross-bert-3"])
def test_only_the_scored_rows_leave_the_last_layer(shelf: Shelf, name: str) -> None:
    ours = shelf.ours(name)
    items = ours.score_intake.prepare(_request(DOCUMENTS))
    rows: list[Any] = []
    hook = ours.model.register_forward_hook(lambda _, inputs, out: rows.append(out.shape[0]))
    pruned = ours.stack(ours.run(items))
    hook.remove()
    assert rows == [len(items)]
    task = make_task(ours.card, ours.settings, CPU)
    whole = Runner(ours.model, task, CPU, torch.float32, prune=False)
    assert np.abs(_run(whole, items) - pruned).max() <= 1e-5


def test_a_score_that_is_not_finite_is_an_error_of_its_own(shelf: Shelf, tmp_path: Path) -> None:
    ours = Pipeline(write_cross_encoder(tmp_path / "broken", CrossSpec(), shelf.tokenizer("bert")))
    items = ours.score_intake.prepare(_request(["a dog", "a man is eating"]))
    token = next(int(token) for token in items[1].ids if token not in items[0].ids)
    next(iter(ours.model.parameters()))[token] = float("nan")
    first, second = ours.run(items)
    assert first.error is None
    assert second.error is not None


def _request(documents: Sequence[str]) -> Any:
    from anydim.intake.request import ScoreRequest

    return ScoreRequest(queries=[QUERY], documents=documents, squash=False)


def _run(runner: Runner, items: Sequence[Item]) -> Scores:
    from anydim.engine.packing import pack

    batch = pack(items)
    outputs = runner.finish(runner.start(batch))
    return Pipeline.stack([outputs[place] for place in np.argsort(batch.order_B)])
