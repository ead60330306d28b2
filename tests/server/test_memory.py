"""A real server whose engine's device has little memory: torch's own error, raised by the engine's process for batches
above a size. That of a real GPU is met in tests/engine/test_memory_gpu.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from tests.server.process import serving
from tests.shelf import load_reference

TOKENS: Final = 200
LITTLE: Final = f"""
import sys

if "anydim.engine.worker" in sys.orig_argv:
    import torch

    from anydim.engine.runner import Runner

    whole = Runner.start

    def start(runner, batch):
        if len(batch.ids_T) > {TOKENS}:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(runner, batch)

    Runner.start = start
"""


def test_out_of_memory_runs_halves_and_costs_only_what_does_not_fit_alone(minilm_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LITTLE)
    texts = [f"{place} " + "word " * 60 for place in range(40)]
    expected = load_reference(minilm_folder).encode(texts, convert_to_numpy=True, normalize_embeddings=True)
    flags = ("--dtype", "float32", "--device", "cpu")
    with serving(minilm_folder, *flags, environment={"PYTHONPATH": str(tmp_path)}) as server:
        status, answer = server.post("/v1/embeddings", {"input": texts})
        assert status == 200
        np.testing.assert_allclose([row["embedding"] for row in answer["data"]], expected, atol=1e-5)
        status, answer = server.post("/v1/embeddings", {"input": "word " * 220})
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert server.post("/v1/embeddings", {"input": "short"})[0] == 200
        counts = server.settled_metrics()
        assert counts["anydim_engine_split_batches_total"] > 0
        assert counts['anydim_engine_errors_total{cause="out_of_memory"}'] == 1
        assert server.get("/ready")[0] == 200
