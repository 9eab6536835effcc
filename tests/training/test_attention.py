"""How attention is computed in training: as products of matrices where torch's fused kernel is slow."""

import pytest
import torch

from cderetrieval.runtime import trained_attention

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "tokens", "fused"),
    [("bfloat16", 64, False), ("bfloat16", 129, True), ("float32", 64, True), ("auto", 64, True)],
)
def test_short_texts_in_bfloat16_do_without_the_fused_kernel(dtype: str, tokens: int, fused: bool) -> None:
    before = torch.backends.cuda.flash_sdp_enabled()  # the switch is for all devices
    with trained_attention(CPU, dtype, tokens):
        assert torch.backends.cuda.flash_sdp_enabled() is fused
    assert torch.backends.cuda.flash_sdp_enabled() is before


def test_gradients_are_those_of_the_fused_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 16, 8, generator=generator)
    attend = torch.nn.functional.scaled_dot_product_attention
    gradients = []
    for dtype in ("auto", "bfloat16"):
        leaf = query.clone().requires_grad_()
        with trained_attention(CPU, dtype, 16):
            attend(leaf, key, value).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
