"""What can this card do at most? A large copy, large products, and the four products of one layer of a shape.

Run: python -m benchmarks.limits [--shape 4b] [--dtype bfloat16] [--quantization fp8] [--out FILE]

The copy and the large products are the limits of which offline.py reports shares. The four products of a layer, with
nothing between them, say how fast the shape could be if everything else were free: at many rows (limited by arithmetic)
and at few (limited by reading the weights; replayed as a CUDA graph, from copies that no cache holds). Operands are
random, since zeros draw less power and so run faster than any real work. Medians of five windows.
It knows torch's products; it knows no engine.

Legend: M rows of activations, K channels in, N channels out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from anydim.models.build import resolve_device
from benchmarks import ours, report, shapes
from benchmarks.roofline import ITEMSIZES, Limits
from benchmarks.shapes import Shape

_WINDOWS: Final = 5
_WINDOW_SECONDS: Final = 0.2
_UNCACHED_BYTES: Final = 512 << 20  # ten times the largest cache of a GPU of today
_FP8_MAX: Final = 448.0

Product = Callable[[Tensor], Tensor]


def precisions_of(device: torch.device, dtype: str, quantization: str) -> list[str]:
    """The precisions whose limits matter: the run's own, and on a GPU those of 16 and of 8 bits."""
    wanted = [dtype, *([] if quantization == "none" else [quantization])]
    if device.type == "cuda":
        wanted += ["bfloat16", *(["fp8"] if torch.cuda.get_device_capability(device) >= (8, 9) else [])]
    return list(dict.fromkeys(wanted))


def measure(shape: Shape, device: torch.device, dtype: str, quantization: str) -> tuple[Limits, list[dict[str, Any]]]:
    """The limits, and all figures as rows."""
    small = device.type == "cpu"
    precisions = precisions_of(device, dtype, quantization)
    bandwidth = copy_bandwidth(device, (16 << 20) if small else (2 << 30))
    rows: list[dict[str, Any]] = [{"engine": "card", "case": "copy", "tb_per_s": bandwidth / 1e12}]
    flops = {}
    for precision in precisions:
        flops[precision] = large_product(device, precision, 256 if small else 8192)
        rows.append({"engine": "card", "case": f"large product, {precision}", "tflops": flops[precision] / 1e12})
    for precision in precisions:
        for rows_M in (32, 256) if small else (32, 512, 16384):
            rows.append(products_row(shape, device, precision, rows_M))
    ours.free()
    return Limits(bandwidth, flops), rows


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second, read and written ones together, of copying ``size`` bytes within the device."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source), device)


def large_product(device: torch.device, precision: str, edge: int) -> float:
    """Operations a second of a product of two matrices of ``edge`` x ``edge``."""
    x_MK = torch.randn(edge, edge, device=device)
    product, operand = product_of(x_MK, precision, edge), as_operand(x_MK, precision)
    return 2.0 * edge**3 / seconds_of(lambda: product(operand), device)


def products_row(shape: Shape, device: torch.device, precision: str, rows_M: int) -> dict[str, Any]:
    """The four products of a layer at ``rows_M`` rows, and what a whole model of them would do."""
    seconds = layer_seconds(shape, device, precision, rows_M)
    return {
        "engine": "products alone",
        "case": f"M={rows_M}, {precision}",
        "layer_ms": 1e3 * seconds,
        "model_ms": 1e3 * seconds * shape.layers,
        "tokens_per_s": rows_M / (seconds * shape.layers),
        "tflops": 2.0 * rows_M * shape.layer_weights / seconds / 1e12,
        "tb_per_s": shape.layer_weights * ITEMSIZES[precision] / seconds / 1e12,
    }


@torch.inference_mode()
def layer_seconds(shape: Shape, device: torch.device, precision: str, rows_M: int) -> float:
    """Seconds of the four products of one layer, averaged over layers that do not fit a cache together."""
    layer_bytes = shape.layer_weights * ITEMSIZES[precision]
    layers = min(shape.layers, math.ceil(_UNCACHED_BYTES / layer_bytes))
    chain: list[tuple[Product, Tensor]] = []
    inputs = [as_operand(torch.randn(rows_M, into, device=device), precision) for into, _ in shape.products]
    for _ in range(layers):
        for x_MK, (into, out) in zip(inputs, shape.products, strict=True):
            weight_NK = torch.randn(out, into, device=device) * 0.02
            chain.append((product_of(weight_NK, precision, rows_M), x_MK))

    def run() -> None:
        for product, x_MK in chain:
            product(x_MK)

    return seconds_of(_graphed(run) if device.type == "cuda" else run, device) / layers


def as_operand(x_MK: Tensor, precision: str) -> Tensor:
    """A float32 matrix in a precision; in 8 bits scaled to the range of the type."""
    if precision == "fp8":
        return (x_MK * (_FP8_MAX / x_MK.abs().max())).to(torch.float8_e4m3fn)
    if precision == "int8":
        return (x_MK * (127 / x_MK.abs().max())).round().to(torch.int8)
    dtype: torch.dtype = getattr(torch, precision)
    return x_MK.to(dtype)


def product_of(weight_NK: Tensor, precision: str, rows_M: int) -> Product:
    """How torch multiplies an operand of ``rows_M`` rows by a weight; fp8 with a scale a row and a column."""
    weight = as_operand(weight_NK, precision)
    if precision == "int8":
        return lambda x_MK: torch._int_mm(x_MK, weight.t())
    if precision == "fp8":
        scales: dict[str, Any] = {
            "scale_a": torch.ones(rows_M, 1, device=weight.device),
            "scale_b": torch.ones(1, len(weight), device=weight.device),
        }
        return lambda x_MK: torch._scaled_mm(x_MK, weight.t(), **scales, out_dtype=torch.bfloat16, use_fast_accum=True)
    return lambda x_MK: torch.nn.functional.linear(x_MK, weight)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: the median of windows that each hold many."""
    for _ in range(2):
        run()
    count = max(1, round((_WINDOW_SECONDS if device.type == "cuda" else 0.01) / _window(run, device, 1)))
    return statistics.median(_window(run, device, count) for _ in range(_WINDOWS))


def _window(run: Callable[[], object], device: torch.device, count: int) -> float:
    """Seconds a call of ``count`` calls one after another."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        run()
    _wait(device)
    return (time.perf_counter() - began) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _graphed(run: Callable[[], None]) -> Callable[[], None]:
    """The same work as one replay, so that launching it costs nothing."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    options = parser.parse_args(arguments)
    device = resolve_device(options.device)
    _, rows = measure(shapes.SHAPES[options.shape], device, options.dtype, options.quantization)
    report.publish(f"limits-{options.shape}", rows, options.out)


if __name__ == "__main__":
    main()
