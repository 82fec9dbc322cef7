"""The codec on a torch device: the same bytes as `codec.py`, which says the layout and why.

For islands with devices: of 4 bytes a value only the half byte that is sent crosses to the host.
That the device rounds as IEEE 754 says is a law tested on the CPU; another device is to pass
tests/laws/test_laws_of_codec_torch.py before it is trusted, or encodes on the host.
"""

import torch

from argosy.training.outer.codec import BLOCK_VALUES, LEVELS, LIMIT, TINY, NotFiniteError, header


def encode(values: torch.Tensor, *, bits: int) -> bytes:
    """Encoded fp32 values of one dimension. Raises NotFiniteError, ValueError as `codec.encode`."""
    if bits not in (4, 8, 32) or values.dim() != 1 or values.numel() == 0:
        raise ValueError(
            f"bits={bits} of values of shape {tuple(values.shape)} were asked for; "
            "possible are 4, 8 or 32 of one or more values in one dimension"
        )
    values = values.detach().to(torch.float32)
    count = values.numel()
    if bits == 32:
        _check_finite(values.abs().max())
        return header(count, bits) + _bytes(values)
    most = LEVELS[bits]
    filled = torch.nn.functional.pad(values, (0, -count % BLOCK_VALUES))
    by_block = filled.reshape(-1, BLOCK_VALUES)
    absmax = by_block.abs().amax(dim=1)
    _check_finite(absmax.max())
    reciprocal = torch.tensor(1 / (most + 0.5), dtype=torch.float32, device=values.device)
    scale = (absmax * reciprocal).to(torch.bfloat16)  # rounds half to even
    scale = torch.where(absmax < TINY, torch.zeros_like(scale), scale)
    scale_fp32 = scale.to(torch.float32)
    inverse = torch.where(scale_fp32 > 0, 1.0 / scale_fp32, torch.zeros_like(scale_fp32))
    code = torch.round(by_block * inverse[:, None]).clamp(-most, most).to(torch.int8)
    return header(count, bits) + _bytes(scale) + _bytes(_pack(code.reshape(-1)[:count], bits))


def _pack(code: torch.Tensor, bits: int) -> torch.Tensor:
    if bits == 8:
        return code
    code = torch.nn.functional.pad(code, (0, code.numel() % 2))
    nibbles = (code + 8).to(torch.uint8).reshape(-1, 2)
    return nibbles[:, 0] | (nibbles[:, 1] << 4)


def _bytes(values: torch.Tensor) -> bytes:
    """As the host keeps them, which is little-endian on all that torch runs on."""
    return values.contiguous().view(torch.uint8).cpu().numpy().tobytes()


def _check_finite(absolute_max: torch.Tensor) -> None:
    """`amax` and `max` give NaN where one is."""
    if not bool(absolute_max < LIMIT):
        raise NotFiniteError(
            "values to encode are not finite, or 2^120 or more: training has diverged, or a chip "
            "computes wrongly; take up the last published parameters again"
        )
