"""Texts that the tests embed: several scripts, code, emoji, nothing at all, too much, and control tokens spelled out.

Real sentences come from tests/data. It knows no tokenizer and no model.
"""

import json
from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parent / "data"

SENTENCES: Final = (
    "The capital of China is Beijing.",
    "A man is eating a piece of bread, isn't he?",
    "中国的首都是北京。机器学习正在改变世界。",
    "عاصمة الصين هي بكين.",
    "नमस्ते दुनिया, यह एक वाक्य है।",
    "Столица Китая — Пекин.",
    "def area(r: float) -> float:\n\treturn 3.14159 * r**2  # a circle",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
)
EDGES: Final = (
    "",
    " ",
    "a",
    "  leading and trailing spaces \n",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f family, flag, heart",
    "e\u0301 \u00e9 \ufb01 \u212b",
    "<|endoftext|> <|im_start|>user<|im_end|> [CLS] [SEP] <s> </s> <pad> spelled out",
)
LONG: Final = " ".join(f"Sentence number {place} of a text that is longer than any limit." for place in range(400))
CORPUS: Final = (*SENTENCES, *EDGES, *(f"number {place} and words like embed, vector, query" for place in range(50)))


def declaration_articles() -> list[str]:
    """The articles of the Universal Declaration of Human Rights in 20 languages."""
    lines = (DATA / "udhr_articles.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
