"""GET /metrics: every request is counted once, under names that a client cannot invent, over all front ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.connection import CAUSES
from anydim.api.engine_metrics import ENGINE_METRICS
from anydim.api.metrics import HTTP_METRICS, REFUSED
from anydim.engine.handle import Health
from anydim.engine.metrics import EngineCounts
from anydim.types import Item, Output
from anydim.version import VERSION

from .conftest import with_engine

Samples = dict[str, dict[tuple[str, ...], float]]


def samples(http: TestClient, **headers: str) -> Samples:
    """Sample name -> label values in the order of their names -> value."""
    found: Samples = {}
    for family in parse(http.get("/metrics", headers=headers).text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_requests_are_counted_by_route_method_and_status() -> None:
    with testing.client() as http:
        for _ in range(3):
            http.post("/v1/embeddings", json={"input": ["a", "b"]})
        http.post("/v1/embeddings", json={"input": 5})
        http.get("/v1/models/anydim/fake")
        http.get("/v1/models/nobody")
        http.get("/v1/embeddings")
        found = samples(http)
    counted = found["anydim_http_requests_total"]
    assert counted["POST", "/v1/embeddings", "200"] == 3
    assert counted["POST", "/v1/embeddings", "400"] == 1
    assert counted["GET", "/v1/models/{name:path}", "200"] == 1
    assert counted["GET", "/v1/models/{name:path}", "404"] == 1
    assert counted["GET", "/v1/embeddings", "405"] == 1
    assert found["anydim_http_request_seconds_count"]["/v1/embeddings", "200"] == 3
    assert found["anydim_http_errors_total"] == {("invalid",): 1, ("not_found",): 1, ("http",): 1}
    assert {stage for (stage,) in found["anydim_http_stage_seconds_count"]} == {"prepare", "engine", "encode"}
    assert set(found["anydim_http_stage_seconds_count"].values()) == {3}
    assert found["anydim_http_received_bytes_total"][()] == 3 * len('{"input":["a","b"]}') + len('{"input":5}')
    assert found["anydim_http_requests_in_flight"][()] == 1  # the one that asks
    assert found["anydim_build_info"]["anydim/fake", VERSION] == 1


def test_a_client_invents_no_labels() -> None:
    with testing.client(api_key=["search:k"]) as http:
        for path in ("/a%20text", "/v1/models/../../secret", "/nowhere", "/embeddings/x"):
            http.request("BREW", path, headers={"api-key": "k"})
            http.get(path)
        found = samples(http, **{"api-key": "k"})
    routes = {route for _, route, _ in found["anydim_http_requests_total"]}
    assert routes <= {"other", "/v1/models/{name:path}"}
    assert {method for method, _, _ in found["anydim_http_requests_total"]} == {"other", "GET"}
    assert found["anydim_http_errors_total"]["unauthorized",] == 4
    assert set(found["anydim_http_key_requests_total"]) == {("search",)}


def test_every_documented_metric_is_there_and_no_other() -> None:
    with testing.client(api_key=["k"]) as http:
        http.post("/v1/embeddings", json={"input": "a"}, headers={"api-key": "k"})
        http.post("/v1/embeddings", json={}, headers={"api-key": "k"})
        for cause in CAUSES:
            http.app.state.metrics.add(REFUSED, cause)  # type: ignore[attr-defined]
        text = http.get("/metrics", headers={"api-key": "k"}).text
        opened = http.get("/metrics", headers={"api-key": "k", "accept": "application/openmetrics-text"})
    shown = {family.name: family.type for family in parse(text) if not family.name.startswith("process_")}
    shown = {name: kind for name, kind in shown.items() if not name.endswith("_created")}
    documented = {metric.name.removesuffix("_total"): metric.kind for metric in (*HTTP_METRICS, *ENGINE_METRICS)}
    assert shown == documented
    assert {family.name for family in parse_open(opened.text)} >= set(documented)


def test_the_engine_tells_what_it_did() -> None:
    with testing.client() as http:
        http.post("/v1/embeddings", json={"input": ["a", "bb", "bb", "ccc"]})
        found = samples(http)
    assert found["anydim_engine_texts_total"][()] == 4
    assert found["anydim_engine_batches_total"][()] >= 1
    assert found["anydim_engine_queued_tokens"][()] == 0
    assert found["anydim_engine_tokens_total"][()] + 3 * found["anydim_engine_deduplicated_total"][()] == 12
    assert found["anydim_engine_batch_tokens_sum"][()] == found["anydim_engine_tokens_total"][()]
    buckets = found["anydim_engine_queue_seconds_bucket"]
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets["+Inf",] == found["anydim_engine_queue_seconds_count"][()] >= 1


def test_every_count_of_the_engine_is_shown_with_a_meaning() -> None:
    fields = {metric.name.removeprefix("anydim_engine_").removesuffix("_total") for metric in ENGINE_METRICS[2:]}
    assert fields == set(EngineCounts.__struct_fields__)
    assert all(len(metric.meaning) > 8 for metric in ENGINE_METRICS)


class Dead:
    """An engine that is not there."""

    async def run(self, items: list[Item]) -> list[Output]:
        raise AssertionError

    def health(self) -> Health:
        return Health(False, False, "gone")

    def counts(self) -> None:
        return None

    def engines(self) -> tuple[Dead, ...]:
        return (self,)


def test_a_dead_engine_is_told() -> None:
    with with_engine(Dead()) as http:
        found = samples(http)
        assert found["anydim_engine_alive"][()] == found["anydim_engine_ready"][()] == 0
        http.post("/v1/embeddings", json={"input": "a"})
        assert samples(http)["anydim_http_errors_total"] == {("crashed",): 1}


FRONT_END = """
import json, sys
from anydim import testing
with testing.client() as http:
    for _ in range(int(sys.argv[1])):
        http.post("/v1/embeddings", json={"input": "a"})
    print(json.dumps(http.get("/metrics").text))
"""


def test_front_ends_that_share_a_folder_add_up(tmp_path: Path) -> None:
    texts = []
    for times in ("2", "3"):
        ended = subprocess.run(
            [sys.executable, "-c", FRONT_END, times],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            check=True,
            timeout=120,
        )
        texts.append(json.loads(ended.stdout))
    (family,) = [family for family in parse(texts[-1]) if family.name == "anydim_http_requests"]
    (sample,) = [sample for sample in family.samples if sample.labels["route"] == "/v1/embeddings"]
    assert sample.value == 5
    assert "anydim_engine_alive 1.0" in texts[-1]
    (seconds,) = [family for family in parse(texts[-1]) if family.name == "anydim_http_request_seconds"]
    assert max(sample.value for sample in seconds.samples if sample.name.endswith("_count")) == 5


def test_many_may_ask_at_once(http: TestClient) -> None:
    with ThreadPoolExecutor(8) as crowd:
        assert {answer.status_code for answer in crowd.map(lambda _: http.get("/metrics"), range(40))} == {200}


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", "application/openmetrics-text; version=1.0.0"])
def test_the_content_type_is_prometheus_own(http: TestClient, accept: str) -> None:
    kind = http.get("/metrics", headers={"accept": accept}).headers["content-type"]
    assert kind.startswith("application/openmetrics-text" if "openmetrics" in accept else "text/plain; version=")
