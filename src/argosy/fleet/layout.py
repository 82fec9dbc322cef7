"""How one replica's model is spread over its chips, and in what numbers it computes."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Dtype = Literal["bf16", "fp8", "int8", "int4", "fp4"]
KvDtype = Literal["bf16", "fp8"]
_Degree = Annotated[int, Meta(ge=1, le=4096)]

# Bytes of one weight; a block-scaled 4-bit format adds about a scale byte for 16 values.
BYTES_OF: dict[str, float] = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "fp4": 0.5625}


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Degrees of parallelism inside one replica. It holds tp x pp x dp chips; ep spreads experts.

    `dp` is data-parallel attention inside the replica (each rank its own requests, the experts
    shared): a replica that is copied whole is another replica, not `dp`.
    """

    tp: Annotated[_Degree, Meta(description="Chips over which each layer is cut.")] = 1
    pp: Annotated[_Degree, Meta(description="Stages into which the layers are cut.")] = 1
    dp: Annotated[_Degree, Meta(description="Ranks of data-parallel attention.")] = 1
    ep: Annotated[_Degree, Meta(description="Chips over which the experts are spread.")] = 1
    dtype: Annotated[Dtype, Meta(description="Of the weights and their products.")] = "bf16"
    kv_dtype: Annotated[KvDtype, Meta(description="Of the KV cache.")] = "bf16"

    @property
    def chips(self) -> int:
        """Chips of one replica."""
        return self.tp * self.pp * self.dp
