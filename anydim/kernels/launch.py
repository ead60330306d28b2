"""Launching Triton kernels: how much shared memory there is, and early launches.

A kernel may start while the one before it ends (programmatic dependent launch), from Hopper on. Such a kernel waits
(`gdc_wait`) before it reads or writes anything but weights: the wait ends when the kernel before it is complete. What
it announces (`gdc_launch_dependents`) lets the next one start. Kernels that are not launched so wait as always. It
knows devices and no kernel.

Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
"""

# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

from typing import Any

import torch


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may take; more than any program needs where there is no GPU."""
    if device.type != "cuda":
        return 1 << 30
    properties: Any = torch.cuda.get_device_properties(device)  # torch reads them once; Triton's driver at every call
    return int(properties.shared_memory_per_block_optin)


def early(device: torch.device) -> dict[str, Any]:
    """What a launch on this device takes: DEPENDENT, the kernel's constant, and on Hopper the launch attribute."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return {"DEPENDENT": False}
    return {"DEPENDENT": True, "launch_pdl": True}
