"""Kernels by the names that torch's profiler shows fall into the family a reader expects; only the device's count."""

from __future__ import annotations

import pytest

from benchmarks.trace import by_family, by_name, events_of, family_of


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("nvjet_tst_192x192_64x3_2x1_v_bz_coopB_TNT", "GEMM"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "GEMM"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", "GEMM"),
        ("void cutlass::device_kernel<at::cuda::detail::enable_3x_kernel_for_sm9x<cutlass::gemm>>", "GEMM"),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16>", "GEMM"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, cutlass::bfloat16_t>>", "attention"),
        ("_attend_kernel", "attention"),
        ("_attend_rows_kernel", "attention"),
        ("_qk_norm_rope_kernel", "rope"),
        ("_add_rms_norm_kernel", "norm"),
        ("_silu_mul_kernel", "activation"),
        ("_quantize_rows_kernel", "quantise"),
        ("void at::native::vectorized_gather_kernel<16, long>", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::MulFunctor<float>>", "other"),
    ],
)
def test_families(name: str, family: str) -> None:
    assert family_of(name) == family


def test_only_complete_events_of_the_device_count_in_order() -> None:
    trace = {
        "traceEvents": [
            {"ph": "X", "cat": "kernel", "name": "_attend_kernel", "ts": 20.5, "dur": 4},
            {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 10, "dur": 2},
            {"ph": "X", "cat": "kernel", "name": "_attend_kernel", "ts": 30, "dur": 1},
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1, "dur": 90},
            {"ph": "X", "cat": "cpu_op", "name": "aten::linear", "ts": 1, "dur": 90},
            {"ph": "i", "cat": "kernel", "name": "a mark", "ts": 1},
            {"ph": "M", "name": "process_name"},
        ]
    }
    events = events_of(trace, device=True)
    assert [event.span for event in events] == [(10, 12), (20.5, 24.5), (30, 31)]
    assert list(by_family(events).items()) == [("attention", 5.0), ("copy", 2.0)]
    assert by_name(events)["_attend_kernel"] == 5.0
    assert [event.name for event in events_of(trace, device=False)] == ["aten::linear"]
