"""What does a rotation fitted on documents gain on documents that it did not see?

Run: python -m benchmarks.projection [--models minilm starter] [--corpora science tools manuals] [--out FOLDER]
     python -m benchmarks.projection --first-seed 3 --seeds 5

Three corpora that the project builds itself (benchmarks/embedded.py): docstrings of scientific packages, docstrings of
tools, and the manual pages of a Debian system. Three fifths of the pages are fitted on; the others are searched with
their own questions, so that neither page nor question was seen. Each way of fitting in anydim/quality/rotations.py is
measured beside truncation and beside half-whitening, which is no rotation and changes full cosines. Seeds 0 to 11,
20 to 22, 30 to 32 and 100 to 102 were looked at while fitting was chosen. Needs the test extra.

Legend: N pages, Q questions, D full dimension, R resamples.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.quality.forms import Form, Rows
from anydim.quality.intervals import Interval, difference, draws, means
from anydim.quality.ranking import Ranking
from anydim.quality.rotations import METHODS, by_moment
from anydim.types import OutputDtype
from benchmarks import report
from benchmarks.embedded import CORPORA, embedded

_DIMS: Final = tuple(range(32, 385, 32))
_DTYPES: Final = (OutputDtype.FLOAT32, OutputDtype.INT8, OutputDtype.BINARY)
_FITTED_ON: Final = 0.6
_GAIN: Final = 1.5  # nDCG points above svd, at few components, on average
_LOSS: Final = 0.5  # nDCG points below the better of svd and truncation, anywhere
_FEW: Final = (32, 64)
_PLAIN_WAYS: Final = ("svd", "truncated")
_EACH: Final = "each"  # a row's figures question by question


def half_whitening(rows_ND: Tensor) -> Tensor:
    """Axes of the second moment, each divided by the root of its strength: (D, D), not orthogonal."""
    axes_DD = by_moment(rows_ND)
    strengths_D = (rows_ND @ axes_DD).square().mean(dim=0).sqrt().clamp_min(1e-6)
    return axes_DD / strengths_D.sqrt()


def ways() -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Name -> rows to a matrix (D, D)."""
    fitted = {name: (lambda rows_ND, fit=fit: fit(rows_ND, lambda *_: None)) for name, fit in METHODS.items()}
    return MappingProxyType(
        {"truncated": lambda rows_ND: torch.eye(rows_ND.shape[1]), **fitted, "half-whitened": half_whitening}
    )


def compare(
    corpus: str, model: str, count: int, folder: Path, seed: int, dtypes: Sequence[OutputDtype], chosen: Sequence[str]
) -> list[dict[str, Any]]:
    """Every way of one corpus through one model, dimension by dimension: nDCG@10 in points, each question's too."""
    found = embedded(corpus, model, count, folder)
    pages_ND, questions_ND = torch.from_numpy(found.pages_ND), torch.from_numpy(found.questions_ND)
    mixed_N = torch.from_numpy(np.random.default_rng(seed).permutation(len(pages_ND)))
    seen = int(_FITTED_ON * len(pages_ND))
    fit_N, held_N = mixed_N[:seen], mixed_N[seen:]
    labels = [{place: 1} for place in range(len(held_N))]
    rows = []
    for name in chosen:
        fit = ways()[name]
        began = time.process_time()
        matrix_DD = fit(pages_ND[fit_N])
        seconds = time.process_time() - began
        task = Ranking(
            queries=Rows(questions_ND[held_N] @ matrix_DD), documents=Rows(pages_ND[held_N] @ matrix_DD), labels=labels
        )
        for dtype in dtypes:
            each = {f"d{dim}": 100 * task.per_query(Form(dim, dtype))["ndcg"] for dim in _DIMS}
            values = {key: float(values_Q.mean()) for key, values_Q in each.items()}
            facts = {"corpus": corpus, "model": model, "seed": seed, "way": name, "dtype": dtype.value, **values}
            rows.append({**facts, _EACH: each})
            print(report.table([facts]), flush=True)
        print(f"{corpus} {model} seed {seed}: {name} fitted on {seen} pages in {seconds:.1f} s of CPU", flush=True)
    return rows


def averaged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over seeds of each corpus, model, way and type."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["corpus"], row["model"], row["way"], row["dtype"]), []).append(row)
    return [
        dict(zip(("corpus", "model", "way", "dtype"), key, strict=True))
        | {f"d{dim}": statistics.mean(row[f"d{dim}"] for row in group) for dim in _DIMS}
        for key, group in groups.items()
    ]


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each way and type against the bars: the mean gain over svd at few components, and the worst loss anywhere.

    Where rows know each question's figure, the worst loss has the interval in which it lies in 95 of 100 resamples of
    the questions, and the places are counted where even the better end of it misses the bar.
    """
    kinds = dict.fromkeys((row["dtype"], row["way"]) for row in rows)
    return [_verdict([row for row in rows if row["dtype"] == dtype], dtype, way) for dtype, way in kinds]


def _verdict(rows: Sequence[Mapping[str, Any]], dtype: str, way: str) -> dict[str, Any]:
    by_place = {(row["corpus"], row["model"], row["way"]): row for row in rows}
    places = sorted({(row["corpus"], row["model"]) for row in rows})
    gains = {
        dim: statistics.mean(by_place[*place, way][f"d{dim}"] - by_place[*place, "svd"][f"d{dim}"] for place in places)
        for dim in _FEW
    }
    margins = {
        (*place, dim): _margin(by_place[*place, way], [by_place[*place, other] for other in _PLAIN_WAYS], f"d{dim}")
        for place in places
        for dim in _DIMS
    }
    worst = min(margins, key=lambda key: margins[key].value)
    is_met = min(gains.values()) >= _GAIN and margins[worst].value >= -_LOSS
    sure = {
        "worst_low": margins[worst].low,
        "worst_high": margins[worst].high,
        "surely_missed": sum(margin.high < -_LOSS for margin in margins.values()),
    }
    return {
        "verdict_on": way,
        "dtype": dtype,
        **{f"mean_gain_over_svd_d{dim}": gain for dim, gain in gains.items()},
        "worst": margins[worst].value,
        **(sure if _EACH in rows[0] else {}),
        "worst_at": " ".join(map(str, worst)),
        "bar": "met" if is_met else "missed",
    }


def _margin(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], key: str) -> Interval:
    """How far a figure is above the better of others', on the same resamples of the questions where they are known."""
    better = max(others, key=lambda other: other[key])
    if _EACH not in row:
        return Interval(*[row[key] - better[key]] * 3)
    own_Q, other_Q = row[_EACH][key], better[_EACH][key]
    draws_RQ = _resamples(len(own_Q))
    return difference(row[key], better[key], means(own_Q, draws_RQ), means(other_Q, draws_RQ))


@functools.cache
def _resamples(questions: int) -> NDArray[Any]:
    """How often each question is drawn: float64 (R, Q), the same for all places."""
    return draws(questions).astype(np.float64)


def _split_by_split(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same verdicts on each split alone: a mean hides how far one can be off."""
    seeds = sorted({row["seed"] for row in rows})
    return [
        {"seed": seed} | found for seed in seeds for found in verdicts([row for row in rows if row["seed"] == seed])
    ]


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["minilm", "starter"])
    parser.add_argument("--corpora", nargs="*", default=list(CORPORA))
    parser.add_argument("--pages", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=2, help="how many splits")
    parser.add_argument("--first-seed", type=int, default=0, help="of the splits")
    parser.add_argument("--ways", nargs="*", default=list(ways()), help="truncated and svd must be among them")
    parser.add_argument("--dtypes", nargs="*", default=[dtype.value for dtype in _DTYPES])
    parser.add_argument("--vectors", type=Path, default=Path("build/vectors"), help="folder that keeps the vectors")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    dtypes = [OutputDtype(name) for name in options.dtypes]
    rows = [
        row
        for corpus in options.corpora
        for model in options.models
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for row in compare(corpus, model, options.pages, options.vectors, seed, dtypes, options.ways)
    ]
    over_splits = averaged(rows)
    report.publish("projection", [*over_splits, *verdicts(over_splits), *_split_by_split(rows)], options.out)


if __name__ == "__main__":
    main()
