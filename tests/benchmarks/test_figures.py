"""What the benchmarks make of their figures: cases, shares of the limit, verdicts, ratios, tables and file names."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anydim.kernels import OP_NAMES, plain_ops
from anydim.models.packed import Packed
from anydim.models.qwen3 import Qwen3
from anydim.models.weights import fill_random
from benchmarks import published, report, rivals, shapes, table
from benchmarks.ablation import AGAIN, ALL_ON, side_by_side, variants, with_ratios, with_twins
from benchmarks.bars import Bar, bar_of
from benchmarks.cases import case_of, fresh_items
from benchmarks.roofline import Limits, with_share

H100 = Limits(3.02e12, {"bfloat16": 680e12, "fp8": 1300e12})


def test_cases_are_what_their_names_say() -> None:
    assert case_of("3x5").lengths == (5, 5, 5)
    assert case_of("2x5+7").lengths == (12, 12)
    assert case_of("single32").single
    mixed = case_of("mixed").lengths
    assert (len(mixed), min(mixed) >= 8, max(mixed) <= 4096) == (1024, True, True)
    assert mixed == case_of("mixed").lengths


@pytest.mark.parametrize("name", ["", "3x", "x5", "0x5", "3x5+0", "single", "Mixed", "3x5x7"])
def test_a_misspelt_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="512x512"):
        case_of(name)


def test_a_case_is_cut_behind_the_text_that_reaches_the_limit() -> None:
    assert case_of("10x8").cut(20).lengths == (8, 8, 8)
    assert case_of("10x8").cut(1000).lengths == (8,) * 10


def test_items_share_the_prefix_of_their_case_and_no_more() -> None:
    items = fresh_items(case_of("4x50+9"), 150_000, [32, 64])
    ids = np.stack([item.ids for item in items])
    assert (ids[:, :9] == ids[0, :9]).all()
    assert len({tuple(row[9:]) for row in ids.tolist()}) == 4
    assert [item.dim for item in items] == [32, 64, 32, 64]
    assert (fresh_items(case_of("1x50"), 150_000, [32])[0].ids != ids[0, :50]).any()


@pytest.mark.parametrize(("case", "linear", "known"), [("512x512", "bfloat16", 93_000), ("512x512", "fp8", 176_000)])
def test_a_batch_at_the_known_ceiling_of_its_products_is_near_the_limit(case: str, linear: str, known: float) -> None:
    row = with_share({"tokens_per_s": known}, case_of(case), shapes.SHAPES["4b"], H100, linear, "bfloat16")
    assert 0.93 < row["share"] < 1.05
    assert row["limited_by"] == "arithmetic"


def test_one_short_text_is_limited_by_reading_the_weights_and_a_long_one_by_arithmetic() -> None:
    short = with_share({"p50_ms": 2.42}, case_of("single32"), shapes.SHAPES["4b"], H100, "bfloat16", "bfloat16")
    assert short["limited_by"] == "memory"
    assert short["share"] == short["share_of_bandwidth"] == pytest.approx(1, abs=0.01)
    long = with_share({"p50_ms": 6.5}, case_of("single512"), shapes.SHAPES["4b"], H100, "bfloat16", "bfloat16")
    assert long["limited_by"] == "arithmetic"
    assert long["share"] > 2 * long["share_of_bandwidth"]


def test_texts_behind_a_shared_prefix_get_no_share() -> None:
    row = {"tokens_per_s": 1e5}
    assert with_share(row, case_of("9x9+9"), shapes.SHAPES["4b"], H100, "bfloat16", "bfloat16") == row


@pytest.mark.parametrize(
    ("bar", "value", "words"),
    [
        (Bar(80_000, "tok/s"), 84_000, "met, 5.0 % better"),
        (Bar(80_000, "tok/s"), 60_000, "missed by 25.0 %"),
        (Bar(3.6, "ms"), 3.6, "met, 0.0 % better"),
        (Bar(3.0, "ms"), 4.0, "missed by 25.0 %"),
        (Bar(15, "s"), 10, "met, 50.0 % better"),
    ],
)
def test_verdicts(bar: Bar, value: float, words: str) -> None:
    assert bar.verdict(value) == words


def test_bars_stand_in_the_unit_of_their_case() -> None:
    assert bar_of("4b", "bfloat16", "mixed") == Bar(80_000, "tok/s")
    assert bar_of("4b", "fp8", "single32") == Bar(2.6, "ms")
    assert bar_of("4b", "bfloat16", "1x32768") == Bar(0.95, "s")
    assert bar_of("4b", "fp8", "memory") == Bar(5.2, "GiB")
    assert bar_of("0.6b", "bfloat16", "1x32768") is bar_of("8b", "bfloat16", "mixed") is None


def result() -> dict[str, Any]:
    """A result of offline.py, put together by hand."""
    rows = [
        {"engine": "anydim", "case": "512x512", "tokens_per_s": 82_820.0, "share": 0.88, "limited_by": "arithmetic"},
        {"engine": "anydim", "case": "single32", "p50_ms": 4.0},
        {"engine": "transformers", "case": "512x512", "tokens_per_s": 49_800.0},
        {"engine": "card", "case": "copy", "tb_per_s": 3.02},
        *published.reference_rows("4b"),
    ]
    known = {"benchmark": "offline-4b-bfloat16", "command": "python -m x", "date": "2026-11-22", "gpu": "NVIDIA H100"}
    return {**known, "commit": "abc", "cpu": "", "rows": rows}


def test_the_table_sets_ours_beside_bars_and_rivals_and_others_apart() -> None:
    lines = table.markdown(result()).splitlines()
    assert "| 512x512 | 82,820 tok/s | 88 % (arithmetic) | 82,000 tok/s | met, 1.0 % better | 49,800 tok/s |" in lines
    assert "| single32 | 4 ms |  | 3.6 ms | missed by 10.0 % |  |" in lines
    [head] = [line for line in lines if "vLLM" in line]
    assert "transformers, forward only" in head
    assert any(line.startswith(f"{published.NOTE.capitalize()} (recorded {published.RECORDED}") for line in lines)
    assert sum(line.startswith("| single32") for line in lines) == 2


def test_the_table_shows_the_kept_results_too() -> None:
    for file in (Path(report.__file__).parent / "results").glob("*.json"):
        kept = json.loads(file.read_text())
        cells = [line for line in table.markdown(kept).splitlines() if line.startswith("|")]
        assert len(cells) > 2
        assert len({line.count("|") for line in cells[:3]}) == 1


def test_reference_rows_say_that_they_are_not_of_this_run() -> None:
    rows = published.reference_rows("4b")
    assert {row["reference"] for row in rows} == {"not of this run"}
    assert all(row["recorded"] and row["hardware"] for row in rows)
    assert published.reference_rows("tiny") == []


def test_results_carry_what_ran_on_what_and_get_a_dated_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/limits.py", "--shape", "4b", "--out", str(tmp_path)])
    for _ in range(2):
        report.publish("limits-4b", [{"case": "copy", "tb_per_s": 3.0}], tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 2  # a second run of the day does not replace the first
    kept = json.loads((tmp_path / files[0]).read_text())
    assert files[0].startswith(f"{kept['date']}-limits-4b-")
    assert kept["command"] == "python -m benchmarks.limits --shape 4b"
    assert kept["versions"]["torch"] == torch.__version__
    assert all(kept[key] for key in ("commit", "cpu", "cores", "python", "date"))
    assert {"gpu", "cuda"} <= set(kept)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == kept


@pytest.mark.parametrize(
    ("gpu", "short"), [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA GeForce RTX 4090", "rtx4090"), ("NVIDIA L4", "l4")]
)
def test_files_are_named_after_the_card(gpu: str, short: str) -> None:
    named = report.place_of({"date": "2026-11-22", "benchmark": "limits-4b", "gpu": gpu}, Path("results"))
    assert named.name == f"2026-11-22-limits-4b-{short}.json"


def test_every_variant_turns_one_part_off_between_two_runs_of_everything() -> None:
    found = variants(["attend", "rms_norm"], ["cuda_graphs", "prune_last_layer", "batches_in_flight"], None)
    assert [one.off for one in found] == [
        ALL_ON, "attend", "rms_norm", "kernels", "graphs", "pruning", "in-flight", AGAIN
    ]  # fmt: skip
    assert [one.off for one in variants([], ["share_prefixes", "cuda_graphs"], ["prefixes"])] == [
        ALL_ON, "prefixes", AGAIN
    ]  # fmt: skip


def test_ratios_are_speeds_over_everything_on_whatever_the_unit() -> None:
    rows = [
        {"off": ALL_ON, "case": "a", "tokens_per_s": 90.0},
        {"off": "x", "case": "a", "tokens_per_s": 50.0},
        {"off": "y", "case": "a", "error": "no"},
        {"off": AGAIN, "case": "a", "tokens_per_s": 110.0},
        {"off": ALL_ON, "case": "b", "p50_ms": 4.0},
        {"off": "x", "case": "b", "p50_ms": 5.0},
    ]
    found = with_ratios(rows)
    assert [round(row.get("ratio", -1), 3) for row in found] == [0.9, 0.5, -1, 1.1, 1.0, 0.8]
    lines = {line["off"]: line for line in side_by_side(found)}
    assert lines["x"] == {"off": "x", "a": "50 tok/s (0.500)", "b": "5.00 ms (0.800)"}
    assert lines["y"]["a"] == "failed"


def test_a_twin_of_a_model_has_its_weights_and_other_operations() -> None:
    calls: list[str] = []
    plain = plain_ops()

    def counted(*inputs: Any) -> Any:
        calls.append("norm")
        return plain.rms_norm(*inputs)

    config = shapes.config("tiny") | {"vocab_size": 64}
    model = Qwen3(config, replace(plain, rms_norm=counted), torch.device("cpu"), torch.float32)
    fill_random(model)
    twin: Any = with_twins(model, ["rms_norm"], plain)
    packed = one_text()
    first = model(packed)
    assert calls == ["norm"]
    assert torch.equal(twin(packed), first)
    assert calls == ["norm"]
    assert twin.norm.data_ptr() == model.norm.data_ptr()
    assert with_twins(model, OP_NAMES, plain)._ops == plain  # type: ignore[attr-defined]


def one_text() -> Packed:
    """Five tokens, packed."""
    from anydim.engine.packing import pack
    from anydim.engine.staging import stage
    from anydim.kernels import make_plan, tile_shape
    from anydim.types import Item

    lengths = np.array([5], np.int32)
    batch = pack([Item(np.arange(5, dtype=np.int32), 64)])
    return stage(batch, make_plan(lengths, tile_shape(5, 8, 8)), torch.device("cpu")).packed


def test_rivals_get_batches_of_neighbours_padded_on_the_left() -> None:
    items = fresh_items(case_of("mixed"), 100, [32])
    for batches in (rivals.by_tokens(items), rivals.by_texts(items)):
        parts = list(batches)
        assert sorted(id(item) for part in parts for item in part) == sorted(map(id, items))
        assert all(len(part) * len(part[0].ids) <= 16384 or len(part) <= 32 for part in parts)
    ids, mask = rivals.padded([items[0], items[1]])
    for place, item in enumerate(items[:2]):
        assert ids[place, -len(item.ids) :].tolist() == item.ids.tolist()
        assert int(mask[place].sum()) == len(item.ids)
        assert bool(mask[place, -len(item.ids) :].all())


def test_a_rival_that_is_not_installed_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert rivals.rival("sentence-transformers", Path(), torch.device("cpu"), torch.float32) is None
    assert "sentence-transformers cannot be measured here" in capsys.readouterr().out
