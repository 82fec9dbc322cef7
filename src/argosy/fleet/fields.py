"""The kinds of single values of `fleet.yaml`, and the base of its tables."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/-]*(?!\n)$",  # Python's $ alone lets a newline pass
        max_length=100,
        description="A name: letters, digits and . _ : / - after a first letter or digit.",
    ),
]
RegionName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9-]*/[a-zA-Z0-9][a-zA-Z0-9._-]*(?!\n)$",
        max_length=100,
        description="A region, written cloud/region: aws/us-east-1.",
    ),
]
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Tier = Literal["enterprise", "consumer", "batch"]
Per = Literal["minute", "hour", "day", "month", "ever"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every table of `fleet.yaml` (msgspec does not inherit kw_only)."""
