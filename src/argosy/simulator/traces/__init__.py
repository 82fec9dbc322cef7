"""Demand: recorded (loaders) or made up (generators), streamed in windows of NumPy columns.

Belongs here: what a request of a trace is, reading the public formats and Argosy's own records,
transforms that keep the order, generators by seed. Does not: serving the requests (`engine`), and
drawing or printing what came of it (`cli`). Read `window.py` first.
"""

from argosy.simulator.traces.arrivals import Diurnal, Rate, Spike
from argosy.simulator.traces.demand import Chats, Stream, demand
from argosy.simulator.traces.lengths import (
    Lengths,
    LengthTable,
    Lognormal,
    Lognormals,
    length_table,
)
from argosy.simulator.traces.opening import Kind, open_trace, sorted_trace
from argosy.simulator.traces.servegen import read_servegen
from argosy.simulator.traces.transforms import (
    assign,
    limit,
    merge,
    scale,
    spread,
    until,
    without_blocks,
)
from argosy.simulator.traces.usage import usage_trace
from argosy.simulator.traces.window import UNNAMED, WINDOW_ROWS, Trace, TraceError, Window

__all__ = [
    "UNNAMED",
    "WINDOW_ROWS",
    "Chats",
    "Diurnal",
    "Kind",
    "LengthTable",
    "Lengths",
    "Lognormal",
    "Lognormals",
    "Rate",
    "Spike",
    "Stream",
    "Trace",
    "TraceError",
    "Window",
    "assign",
    "demand",
    "length_table",
    "limit",
    "merge",
    "open_trace",
    "read_servegen",
    "scale",
    "sorted_trace",
    "spread",
    "until",
    "usage_trace",
    "without_blocks",
]
