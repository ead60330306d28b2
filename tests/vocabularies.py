"""Tiny tokenizers in the layouts of the hub, trained on a few sentences: byte-level BPE, WordPiece and Unigram.

They cover every script (byte fallback, or an unknown token) in a few hundred entries, so that random checkpoints stay
small. It knows no models.
"""

from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.qwen_tokenizer import ADDED, WORDS
from tests.texts import CORPUS

ENTRIES: Final = 600


def write_qwen_like(file: Path) -> Path:
    """Byte-level BPE with Qwen3's word pattern, added tokens and final ``<|endoftext|>``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, _byte_level_trainer([]))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in ADDED[:14]])
    end = ADDED[0]
    template = processors.TemplateProcessing(
        single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return _save(tokenizer, file)


def write_roberta(file: Path) -> Path:
    """Byte-level BPE with ``<s>`` and ``</s>`` at the ends, ids as in RoBERTa: 0, 1 (pad), 2, 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, _byte_level_trainer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False, trim_offsets=True
    )
    return _save(tokenizer, file)


def write_xlm_roberta(file: Path) -> Path:
    """Unigram over sentencepiece's word marks, with ``<s>`` and ``</s>`` at the ends; ids as in XLM-RoBERTa."""
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = Tokenizer(models.Unigram([(name, 0.0) for name in names] + _pieces(), unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(list(names))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _save(tokenizer, file)


def write_bert(file: Path) -> Path:
    """WordPiece with ``[CLS]`` and ``[SEP]`` at the ends, lower-casing."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=ENTRIES, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _save(tokenizer, file)


def _pieces() -> list[tuple[str, float]]:
    """Every character of the corpus, and its words behind a word mark, with made-up log probabilities."""
    characters = sorted(set("".join(CORPUS)) - {" "})
    words = sorted({f"▁{word}" for text in CORPUS for word in text.split() if "<" not in word})
    return [(character, -8.0) for character in ("▁", *characters)] + [(word, -6.0 - len(word) / 4) for word in words]


def _byte_level_trainer(special: list[str]) -> trainers.BpeTrainer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(
        vocab_size=ENTRIES, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )


def _save(tokenizer: Tokenizer, file: Path) -> Path:
    tokenizer.save(str(file))
    return file
