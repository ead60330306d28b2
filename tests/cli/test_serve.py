"""What `anydim serve` says of its start."""

from anydim.cli.serve import loading_words
from anydim.engine.wire import Started


def test_a_device_that_takes_its_time_is_told_apart_from_the_weights() -> None:
    gpu = Started(device="GPU", dtype="bfloat16", device_seconds=2.0, weights_seconds=1.5, warmup_seconds=6.25)
    assert loading_words(gpu) == "Model loaded in 9.8s (device 2.0s, weights 1.5s, warm-up 6.2s)"
    cpu = Started(device="cpu", dtype="float32", device_seconds=0.001, weights_seconds=1.5, warmup_seconds=0.5)
    assert loading_words(cpu) == "Model loaded in 2.0s (weights 1.5s, warm-up 0.5s)"
