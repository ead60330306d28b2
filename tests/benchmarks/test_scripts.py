"""Every script that measures token ids runs from start to end on a CPU with the tiny shape; its figures say nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anydim.errors import ConfigError
from benchmarks import (
    ablation,
    limits,
    load,
    offline,
    offline_files,
    offline_memory,
    ours,
    parallel,
    profile,
    projection_cost,
    serve,
    soak_engine,
    start,
    table,
)

TINY = ("--shape", "tiny", "--dtype", "float32", "--device", "cpu")

Script = Callable[..., dict[str, Any]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Script:
    """Run a script's main with flags; its result file, which is also the last line that it printed."""

    def run(main: Callable[[], None], *flags: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["script.py", *flags, "--out", str(tmp_path)])
        main()
        [file] = tmp_path.glob("*.json")
        kept: dict[str, Any] = json.loads(file.read_text())
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == kept
        table.main([str(file)])
        assert capsys.readouterr().out.count("|") > 10
        return kept

    return run


def test_offline(script: Script) -> None:
    flags = ("--cases", "8x16", "4x8+8", "single32", "--passes", "1", "--single-runs", "3")
    kept = script(offline.main, *TINY, *flags, "--rival", "transformers", "sentence-transformers")
    assert kept["benchmark"] == "offline-tiny-float32"
    found = {(row["engine"], row["case"]): row for row in kept["rows"]}
    for engine in ("anydim", "transformers", "sentence-transformers"):
        assert found[engine, "8x16"]["tokens_per_s"] > 0
        assert found[engine, "8x16"]["share"] > 0
        assert found[engine, "4x8+8"]["tokens_per_s"] > 0
        assert 0 < found[engine, "single32"]["p50_ms"] <= found[engine, "single32"]["p99_ms"]
        assert found[engine, "single32"]["share_of_bandwidth"] > 0
    assert found["card", "copy"]["tb_per_s"] > 0


def test_offline_files(script: Script) -> None:
    flags = ("--shape", "tiny", "--dtype", "float32", "--device", "cpu", "--texts", "60", "--shard-texts", "20")
    files, engine, load = script(offline_files.main, *flags)["rows"]
    assert files["tokens"] == engine["tokens"] > 60
    assert files["of_engine"] == files["tokens_per_s"] / engine["tokens_per_s"]
    assert load["seconds"] > 0


def test_a_setting_that_is_not_there_is_refused_and_not_measured() -> None:
    parser = argparse.ArgumentParser()
    ours.add_flags(parser)
    with pytest.raises(ConfigError, match="share_prefixs"):
        ours.settings_of(parser.parse_args([*TINY]), Path(), share_prefixs=False)


def test_a_misspelt_case_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="512by512"):
        offline.main([*TINY, "--cases", "8x16", "512by512"])


def test_limits(script: Script) -> None:
    kept = script(limits.main, *TINY)
    assert [row["case"] for row in kept["rows"]] == [
        "copy", "large product, float32", "M=32, float32", "M=256, float32"
    ]  # fmt: skip


def test_ablation(script: Script) -> None:
    kept = script(ablation.main, *TINY, "--cases", "16x16", "mixed", "single8", "--tokens", "64", "--quick")
    found = {(row["off"], row["case"]): row for row in kept["rows"]}
    for part in (ablation.ALL_ON, "graphs", "pruning", "in-flight", ablation.AGAIN):
        assert all(found[part, case]["ratio"] > 0 for case in ("16x16", "mixed", "single8"))


def test_ablation_goes_on_when_a_variant_fails(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ablation.load_engine

    def failing(card: Any, model: Any, engine: Any, *rest: Any) -> Any:
        if not engine.prune_last_layer:
            raise RuntimeError("no room on the device")
        return whole(card, model, engine, *rest)

    monkeypatch.setattr(ablation, "load_engine", failing)
    kept = script(ablation.main, *TINY, "--cases", "4x8", "--parts", "pruning", "--quick")
    failed, again = kept["rows"][1:]
    assert failed["error"] == "no room on the device"
    assert again["ratio"] > 0


def test_profile(script: Script, tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    flags = ("--cases", "16x16", "--seconds", "0.01", "--single", "8", "--single-runs", "3", "--trace", str(traces))
    rows = script(profile.main, *TINY, *flags)["rows"]
    [batch] = [row for row in rows if "idle_share" in row]
    assert 0 <= batch["idle_share"] < 1
    assert batch["batches"] >= 1
    shares = [row["share"] for row in rows if row.get("case") == "16x16" and "family" in row]
    assert sum(shares) == pytest.approx(1)
    [single] = [row for row in rows if "host_share" in row]
    assert single["busy_ms"] + single["between_kernels_ms"] == pytest.approx(single["device_ms"])
    assert sorted(path.name for path in traces.iterdir()) == ["16x16.json", "single8.json"]


@pytest.mark.parametrize("flags", [(*TINY, "--cases", "4x8", "single8"), ("--models", "minilm")])
def test_projection_cost(script: Script, flags: tuple[str, ...]) -> None:
    rows = script(projection_cost.main, *flags, "--seconds", "0", "--least-rounds", "3")["rows"]
    assert [row["case"] for row in rows] == (["4x8", "single8"] if "--cases" in flags else ["16 lines"])
    for row in rows:
        assert row["rounds"] == 3
        assert row["cost_low"] <= row["cost_percent"] <= row["cost_high"]
        assert row["bar"] in ("met", "missed", "not told")


@pytest.mark.parametrize(
    ("share", "again", "bar"), [(1.004, 1.0, "met"), (1.02, 1.0, "missed"), (1.0, 1.03, "not told")]
)
def test_a_projections_cost_is_judged_beside_what_the_machine_makes_up(share: float, again: float, bar: str) -> None:
    draw = np.random.default_rng(0)
    rounds = projection_cost.Rounds()
    for machine in draw.uniform(0.5, 1.5, 400):  # as fast as it happens to be in a round
        for name, kind in {"without": 1.0, "with": share, "without again": again, "with again": share * again}.items():
            rounds.taken[name].append(machine * kind * draw.normal(1, 0.01))
    found = projection_cost.verdict(rounds)
    assert found["bar"] == bar
    assert found["cost_low"] < 100 * (share - 1) < found["cost_high"]
    assert found["control_without"] == pytest.approx(100 * (again - 1), abs=0.5)


def test_start(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # the script sets it; here it is put back
    checkpoint, first, again = script(start.main, *TINY)["rows"]
    assert checkpoint["files"] == 1
    for row in (first, again):
        assert row["ready_s"] > row["weights_s"] + row["warmup_s"] > 0
        assert row["weights_gb_per_s"] > 0


def test_soak_engine(script: Script) -> None:
    work, host, *_ = script(soak_engine.main, *TINY, "--seconds", "2", "--longest", "300")["rows"]
    assert work["texts"] >= work["submissions"] > 0
    assert host["memory"] == "host_mib"
    assert 0 < host["from_mib"] <= 1.5 * host["most_mib"]


def test_a_line_through_memory_leaves_the_first_quarter_out() -> None:
    times = np.arange(8.0)
    found = soak_engine.line_through(times, [1, 50, 100, 103, 106, 109, 112, 115])
    assert found["mib_a_minute"] == pytest.approx(180)
    assert found["growth_share"] == pytest.approx(0.15)
    assert found["most_mib"] == 115


def test_serve(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = script(serve.main, "--shape", "tiny", "--connections", "2", "--texts", "4", "--seconds", "0.5")["rows"]
    assert [row["way"] for row in rows] == ["http", "http", "in process", "in process"]
    assert rows[0]["tokens_per_s"] > 0


def test_load(script: Script) -> None:
    flags = (
        "--cases",
        "mixed",
        "overload",
        "--seconds",
        "0.5",
        "--document",
        "64",
        "--rate",
        "10",
        "--texts",
        "2",
        "--rounds",
        "1",
    )
    kept = script(load.main, "--model", "minilm", *flags, "--expected-rate", "200")
    found = {(row["case"], row["what"]): row for row in kept["rows"] if "what" in row}
    assert found["mixed", "short beside bulk"]["answered"] > 0
    assert found["mixed", "bulk beside short"]["tokens_per_s"] > 0
    assert found["overload", "three times as much"]["answered"] > 0
    [rounds] = [row for row in kept["rows"] if row["case"] == "peak in its rounds"]
    assert float(rounds["p99_ms"]) == pytest.approx(found["overload", "peak"]["p99_ms"], abs=1)  # there is one round
    assert 0 < rounds["busy_share"] < 1.5  # a batch counts where it ends, in half a second that is much
    assert 0 < rounds["batch_ms_p50_up_to"] <= rounds["batch_ms_most_up_to"]
    [verdict] = [row for row in kept["rows"] if "bulk_share" in row]
    assert verdict["bulk_share"] > 0
    assert verdict["short_p99_ms"] > 0


def test_parallel(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_SINGLES", {32: 3})
    for name, small in {
        "_WARM_SECONDS": 0.1,
        "_CLIENTS": 2,
        "_TEXTS": 2,
        "_TOKENS": 64,
        "_LENGTHS": (1, 30, 65),
    }.items():
        monkeypatch.setattr(parallel, name, small)
    kept = script(parallel.main, *TINY, "--parts", "one", "dp", "tp", "--seconds", "1")
    found = {(row["part"], row["case"]): row for row in kept["rows"]}
    for part in ("dp", "tp"):
        assert found[part, "vectors"]["least_cosine"] > 0.99999
        assert found[part, "2x64"]["tokens_per_s"] > 0
    assert found["tp", "single32"]["p50_ms"] > 0
    assert not any(case == "failed" for _, case in found)


def test_offline_memory(script: Script) -> None:
    flags = ("--rows", "40", "20", "--inputs", "jsonl.zst", "--outputs", "npy", "--shard-texts", "16")
    few, many, growth = script(offline_memory.main, *flags, "--failing", "0.2")["rows"]
    assert (few["rows"], many["rows"]) == (20, 40)
    assert 50 < few["peak_mib"] < 4000
    assert growth["growth_mib"] == many["peak_mib"] - few["peak_mib"]
