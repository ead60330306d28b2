"""Rows of known structure: a few strong directions, hidden by a rotation, as models that were not trained to be cut."""

import torch


def hidden_structure(count: int, width: int, seed: int = 0, decay: float = 0.9) -> torch.Tensor:
    """Unit rows float32 (count, width) whose strength falls by ``decay`` from direction to direction."""
    draw = torch.Generator().manual_seed(seed)
    strengths = decay ** torch.arange(width, dtype=torch.float32)
    turned, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(99)))
    return torch.nn.functional.normalize(torch.randn(count, width, generator=draw) * strengths @ turned)


def in_order(count: int, width: int, seed: int = 0, decay: float = 0.9) -> torch.Tensor:
    """The same with the strongest directions first, as models that were trained to be cut."""
    draw = torch.Generator().manual_seed(seed)
    strengths = decay ** torch.arange(width, dtype=torch.float32)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=draw) * strengths)
