"""The page at / in a browser, against real servers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from openai import OpenAI

from anydim import testing
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings
from anydim.engine.metrics import EngineCounts
from anydim.errors import Overloaded
from tests.api.conftest import running
from tests.api.test_errors import Scripted, raising
from tests.server.process import ServerProcess

QUERY = "How do I keep bread fresh?"
TEXTS = ["Store a loaf in a paper bag.", "Freeze sliced bread.", "The night train leaves at ten.", "面包切片后冷冻。"]
PATIENCE = 30_000


def until(page: Any, true: str) -> None:
    """Wait for an expression to become true; the page's own policy lets nobody evaluate strings inside it."""
    for _ in range(PATIENCE // 50):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it did not happen: {true}; the page says: {page.inner_text('body')[:2000]}")


def fill(page: Any, address: str, texts: list[str], query: str = "") -> None:
    page.goto(address)
    until(page, "document.querySelector('#model').value !== ''")
    page.fill("#query", query)
    page.fill("#texts", "\n".join(texts))


def embed(page: Any, address: str, texts: list[str], query: str = "") -> None:
    fill(page, address, texts, query)
    page.click("#embed")
    page.wait_for_selector("#heat td", timeout=PATIENCE)


def slide(page: Any, dimension: int, step: int = 32) -> None:
    page.locator("#slider").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", dimension // step - 1
    )


def heat(page: Any) -> np.ndarray[Any, Any]:
    values = page.eval_on_selector_all("#heat td", "cells => cells.map(cell => Number(cell.dataset.value))")
    side = int(len(values) ** 0.5)
    return np.array(values).reshape(side, side)


def vectors(server: ServerProcess, texts: list[str], dimension: int, kind: str) -> np.ndarray[Any, Any]:
    status, answer = server.post("/v1/embeddings", {"input": texts, "output_dim": dimension, "input_type": kind})
    assert status == 200
    return np.array([row["embedding"] for row in answer["data"]])


def test_the_heat_map_follows_the_slider_and_equals_the_server_s_vectors(page: Any, starter: ServerProcess) -> None:
    embed(page, starter.address, TEXTS)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown = {}
    for dimension in (384, 64, 32):
        slide(page, dimension)
        assert page.inner_text("#chosen").startswith(f"{dimension} of 384")
        shown[dimension] = heat(page)
    assert not [url for url in asked if "embeddings" in url]  # cut here, not asked again
    for dimension, found in shown.items():
        expected = vectors(starter, TEXTS, dimension, "document")
        np.testing.assert_allclose(found, expected @ expected.T, atol=1e-5)
    assert not np.allclose(shown[384], shown[32], atol=1e-3)


def test_a_projection_is_cut_in_the_browser_as_by_the_server(page: Any, tmp_path: Path, starter_folder: Path) -> None:
    import torch

    from anydim.models.rotation import Rotation, write_rotation
    from tests.server.process import serving

    rotation_DD = torch.linalg.qr(torch.randn(384, 384, generator=torch.Generator().manual_seed(3)))[0]
    write_rotation(tmp_path / "p.safetensors", Rotation(rotation_DD))
    with serving(starter_folder, "--projection", tmp_path / "p.safetensors") as server:
        embed(page, server.address, TEXTS)
        slide(page, 64)
        expected = vectors(server, TEXTS, 64, "document")
        np.testing.assert_allclose(heat(page), expected @ expected.T, atol=1e-5)


def test_the_query_s_best_texts_stand_side_by_side(page: Any, starter: ServerProcess) -> None:
    embed(page, starter.address, TEXTS, QUERY)
    slide(page, 96)
    columns = page.eval_on_selector_all(".result", "all => all.map(each => Number(each.dataset.dimension))")
    assert columns == [96, 32, 64, 384]
    for dimension in columns:
        expected = vectors(starter, TEXTS, dimension, "document") @ vectors(starter, [QUERY], dimension, "query")[0]
        rows = page.eval_on_selector_all(
            f".result[data-dimension='{dimension}'] li", "all => all.map(row => [row.dataset.place, row.dataset.score])"
        )
        assert [int(place) for place, _ in rows] == list(np.argsort(-expected))
        np.testing.assert_allclose([float(score) for _, score in rows], np.sort(expected)[::-1], atol=1e-5)
    page.click("#columns input[value='64']")
    assert page.locator(".result").count() == 3


def test_an_instruction_goes_with_the_query_alone(page: Any) -> None:
    instruction = "Find the way to keep food"
    with testing.app() as app, running(app) as address:
        fill(page, address, TEXTS, QUERY)
        assert page.is_enabled("#instruction")
        page.fill("#instruction", instruction)
        page.click("#embed")
        page.wait_for_selector("#heat td", timeout=PATIENCE)
        shown = page.eval_on_selector_all(".result:first-child li", "all => all.map(row => Number(row.dataset.score))")
        size = int(page.eval_on_selector(".result:first-child", "first => first.dataset.dimension"))
        client = OpenAI(base_url=f"{address}/v1", api_key="none")
        asked = {"model": "anydim/fake", "dimensions": size}
        query = client.embeddings.create(input=[QUERY], extra_body={"instruction": instruction}, **asked)
        found = client.embeddings.create(input=TEXTS, extra_body={"input_type": "document"}, **asked)
    scores = np.array([row.embedding for row in found.data]) @ np.array(query.data[0].embedding)
    np.testing.assert_allclose(shown, np.sort(scores)[::-1], atol=1e-5)


def test_everything_can_be_done_with_keys_alone(page: Any, starter: ServerProcess) -> None:
    fill(page, starter.address, TEXTS, QUERY)
    page.focus("#texts")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#heat td", timeout=PATIENCE)
    page.focus("#slider")
    page.keyboard.press("Home")
    assert page.inner_text("#chosen").startswith("32 of 384")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#chosen").startswith("64 of 384")
    assert page.get_attribute("#slider", "aria-valuetext").startswith("64 of 384")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "TD"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    chosen = page.evaluate("({...document.activeElement.dataset})")
    assert chosen["row"] == chosen["column"] == "1"
    assert "Freeze sliced bread." in page.inner_text("#pair")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"copy-curl", "copy-python", "pause", "advice-file", "language", "query", "embed"} <= reached


def test_a_phone_in_chinese_needs_no_scrolling_sideways(phone: Any, starter: ServerProcess, tmp_path: Path) -> None:
    embed(phone, starter.address, [*TEXTS, "一" * 300, "x" * 300], QUERY)
    phone.set_input_files("#advice-file", written(tmp_path))
    phone.wait_for_selector("#chart svg")
    phone.wait_for_selector("#tiles div", timeout=PATIENCE)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.get_attribute("html", "lang") == "zh-CN"
    assert phone.inner_text("#embed") == "计算向量"
    phone.click("#language")
    assert phone.inner_text("#embed") == "Embed"
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.reload()
    assert phone.inner_text("#embed") == "Embed"


def test_text_stays_text(page: Any, starter: ServerProcess) -> None:
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    embed(page, starter.address, [evil, "plain"], evil)
    assert page.title() == "anydim"
    assert page.locator("main img, main script").count() == 0
    assert evil in page.inner_text("#results")


def test_copied_commands_do_what_the_page_did(page: Any, starter: ServerProcess) -> None:
    odd = ['it\'s "quoted" \\ and $HOME `x`', "一 line"]
    embed(page, starter.address, odd, QUERY)
    slide(page, 64)
    first, second = page.inner_text("#curl").split("\n\n")
    answer = json.loads(subprocess.run(["sh", "-c", second], capture_output=True, check=True, timeout=60).stdout)
    expected = vectors(starter, odd, 64, "document")
    np.testing.assert_allclose([row["embedding"] for row in answer["data"]], expected, atol=1e-6)
    assert QUERY in first
    program = page.inner_text("#python")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=120)
    scores = expected @ vectors(starter, [QUERY], 64, "query")[0]
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], scores, atol=1e-5)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-python")
    until(page, "document.querySelector('#copied').textContent !== ''")
    assert page.evaluate("navigator.clipboard.readText()") == program


def test_live_metrics_come_from_the_server(page: Any, starter: ServerProcess) -> None:
    embed(page, starter.address, TEXTS)
    shown = "name => document.querySelector(`[data-metric='${name}'] dd`)?.textContent"
    until(page, f"({shown})('queued-texts') === '0'")
    page.click("#embed")
    until(page, f"/ms|s$/.test(({shown})('latency-p95'))")
    assert page.evaluate(shown, "memory") == "none (CPU)"
    names = page.eval_on_selector_all("#tiles div", "all => all.map(tile => tile.dataset.metric)")
    assert {"queued-tokens", "batch-p50", "texts-rate", "latency-p50", "latency-p99", "memory"} <= set(names)


def test_the_memory_of_a_gpu_is_told_of_all(page: Any) -> None:
    counts = EngineCounts(device_used_bytes=9 << 30, device_total_bytes=80 << 30)
    models = Models([ServedModel(intake=testing.intake())])
    with running(create_app(models, Scripted(counted=counts), ServerSettings())) as address:
        page.goto(address)
        until(page, "document.querySelector('[data-metric=memory] dd')?.textContent === '9.0 / 80.0 GiB'")


def test_a_key_is_asked_for_and_kept_out_of_addresses(page: Any) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    with testing.app(api_key=["right ключ"]) as app, running(app) as address:
        page.goto(address)
        page.wait_for_selector("#ask[open]", timeout=PATIENCE)
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#ask-wrong').textContent !== ''")
        assert page.inner_text("#ask-wrong") == "Incorrect API key provided"
        page.fill("#key", "right ключ")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#model').value !== ''")
        assert not page.is_visible("#ask")
        assert not page.is_visible("#docs")
        assert "$ANYDIM_API_KEY" in page.inner_text("#curl")
        assert "right" not in page.inner_text("#curl") + page.inner_text("#python")
        page.click("#embed")
        page.wait_for_selector("#heat td", timeout=PATIENCE)
        kept = page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")
        assert json.loads(kept)[0] == {"anydim-key": "right ключ"}
        assert "right" not in json.dumps(json.loads(kept)[1])
        assert not [url for url in urls if "right" in url or "wrong" in url]
        page.click("#forget")
        page.wait_for_selector("#ask[open]", timeout=PATIENCE)
        assert page.evaluate("sessionStorage.length") == 0


def test_refusals_are_shown_in_the_server_s_words(page: Any) -> None:
    with testing.app(testing.FakeModel(max_tokens=40)) as app, running(app) as address:
        fill(page, address, ["a" * 60])
        page.click("#embed")
        page.wait_for_selector("#notice:not([hidden])", timeout=PATIENCE)
        assert re.search(r"The server answered 400: .*40", page.inner_text("#notice"))
        page.fill("#texts", "short")
        page.click("#embed")
        page.wait_for_selector("#notice", state="hidden", timeout=PATIENCE)


def test_a_busy_server_says_when_to_come_back(page: Any) -> None:
    engine = raising(Overloaded("the queue is full", retry_after=2.3))
    app = create_app(Models([ServedModel(intake=testing.intake())]), engine, ServerSettings())
    with running(app) as address:
        fill(page, address, ["one"])
        page.click("#embed")
        page.wait_for_selector("#notice:not([hidden])", timeout=PATIENCE)
        notice = page.inner_text("#notice")
    assert "the queue is full" in notice
    assert "Try again in 3 s" in notice


def test_metrics_that_fail_are_told_of_until_they_come_but_never_over_the_user_s_own_refusal(page: Any) -> None:
    broken = "**/metrics"
    with testing.app(testing.FakeModel(max_tokens=40)) as app, running(app) as address:
        page.route(broken, lambda route: route.fulfill(status=500, body="broken"))
        fill(page, address, ["a" * 60])
        page.wait_for_selector("#notice:not([hidden])", timeout=PATIENCE)
        page.unroute(broken)
        page.wait_for_selector("#notice", state="hidden", timeout=PATIENCE)
        page.click("#embed")
        until(page, "document.querySelector('#notice').textContent.includes('40')")
        page.route(broken, lambda route: route.fulfill(status=500, body="broken"))
        with page.expect_response(broken, timeout=PATIENCE):
            pass
        page.wait_for_timeout(100)
        assert "40" in page.inner_text("#notice")


def test_a_lost_server_is_told_of(page: Any) -> None:
    with testing.app() as app, running(app) as address:
        fill(page, address, ["one", "two"])
    page.click("#embed")
    page.wait_for_selector("#notice:not([hidden])", timeout=PATIENCE)
    assert "does not answer" in page.inner_text("#notice")
    assert page.is_enabled("#embed")


def written(folder: Path) -> str:
    rows = [
        {"dim": dim, "dtype": dtype, "fitted": fitted, "bytes": dim * size, "value": value}
        | {"share": value / 0.6, "share_low": value / 0.6 - 0.03, "share_high": value / 0.6 + 0.03}
        for dim, value in ((32, 0.4), (128, 0.59), (384, 0.6))
        for dtype, size, fitted in (("float32", 4, False), ("float32", 4, True), ("int8", 1, False))
    ]
    advice = {"model": "m", "corpus": "c", "metric": "ndcg@10", "keep": 0.98, "count": 1000, "rows": rows}
    file = folder / "advise.json"
    file.write_text(
        json.dumps({**advice, "recommended": rows[5], "advice": "Use int8 at <b>128</b>."}), encoding="utf-8"
    )
    return str(file)


def test_advise_s_file_becomes_a_chart(page: Any, starter: ServerProcess, tmp_path: Path) -> None:
    page.goto(starter.address)
    page.set_input_files("#advice-file", written(tmp_path))
    page.wait_for_selector("#chart svg")
    assert "Use int8 at <b>128</b>." in page.inner_text("#chart")
    assert page.locator("#chart circle.point").count() == 9
    assert page.inner_text("#chart tr.use td:first-child") == "128 int8"
    for text in ("[]", "{", '{"rows": [1], "keep": 1}', "x" * 100):
        wrong = tmp_path / "wrong.json"
        wrong.write_text(text, encoding="utf-8")
        page.set_input_files("#advice-file", [])
        page.set_input_files("#advice-file", str(wrong))
        page.wait_for_selector("#advice-error:not([hidden])")
        assert "wrong.json" in page.inner_text("#advice-error")
        assert page.locator("#chart svg").count() == 0


def test_a_page_without_texts_says_so(page: Any, starter: ServerProcess) -> None:
    fill(page, starter.address, [])
    page.click("#embed")
    page.wait_for_selector("#notice:not([hidden])", timeout=PATIENCE)
    assert "The server answered 400" in page.inner_text("#notice")
