"""Speed and error of the codec: python -m bench.training.parity_codec. MB are of fp32."""

import time

import numpy as np

from argosy.training.outer.codec import decode, encode, encode_and_decode, encoded_bytes
from argosy.training.outer.step import OuterSettings, close_fragment, first_fragment

VALUES = 4 * 2**20


def main() -> None:
    chance = np.random.default_rng(0)
    values = (chance.standard_normal(VALUES) * 1e-3).astype(np.float32)
    print("bits  bits/value  error   encode  encode+decode  decode   MB per CPU second")
    for bits in (4, 8, 32):
        data, decoded = encode_and_decode(values, bits=bits)
        error = np.linalg.norm(values - decoded) / np.linalg.norm(values)
        speeds = [
            _mb_per_s(call)
            for call in (
                lambda bits=bits: encode(values, bits=bits),
                lambda bits=bits: encode_and_decode(values, bits=bits),
                lambda data=data: decode(data, values=VALUES),
            )
        ]
        size = 8 * encoded_bytes(VALUES, bits) / VALUES
        print(f"{bits:4}  {size:10.2f}  {error:.4f}" + "".join(f"  {one:7.0f}" for one in speeds))
    fragment = first_fragment(values)
    settings = OuterSettings(lr=0.7, momentum=0.9, bits=4)
    speed = _mb_per_s(lambda: close_fragment(fragment, [(values, 0.3)] * 3, settings))
    print(f"closing a round of 3 decoded deltas, 4 bits: {speed:.0f} MB/s of parameters")


def _mb_per_s(call) -> float:
    best_s = float("inf")
    for _ in range(9):
        begun_s = time.process_time()
        call()
        best_s = min(best_s, time.process_time() - begun_s)
    return VALUES * 4 / best_s / 1e6


if __name__ == "__main__":
    main()
