"""The map of the plan's page: what runs in which region, and which way requests go.

Places: `world/places.csv`, to a tenth of a degree: the town by which AWS and Google name a region,
and what Azure publishes of its own. `world/land.json`: Natural Earth, public domain. A region that
is in neither list but bears a town's name (own/frankfurt) is put there; others are named below.
"""

import csv
import itertools
import json
import math
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from io import StringIO

import msgspec

from argosy.cli.planning.svg import short

_WIDTH, _HEIGHT = 860.0, 400.0
_DEGREES_MIN = 70.0  # of longitude: nearer, the thinned coast would look odd
_PAD = 14.0
_RADIUS_MAX, _RADIUS_MIN = 26.0, 7.0
_LABEL_W, _LABEL_H = 7.7, 15.0  # of a letter, of a line


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Chips of one pool."""

    name: str
    colour: str  # CSS
    chips: float


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A region with what runs there; none: only clients are there."""

    region: str
    slices: tuple[Slice, ...] = ()

    @property
    def chips(self) -> float:
        """Of all pools."""
        return sum(one.chips for one in self.slices)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Requests from one region to another."""

    origin: str
    region: str
    requests_per_s: float


class Spot(msgspec.Struct, kw_only=True):
    """A place in the picture, until it has moved away from its neighbours."""

    x: float
    y: float
    radius: float


def world_map(places: Sequence[Place], ways: Sequence[Way]) -> tuple[str, tuple[str, ...]]:
    """The SVG, and the regions that are on no map."""
    known = {one.region: where for one in places if (where := located(one.region))}
    missing = tuple(one.region for one in places if one.region not in known)
    if not known:
        return "", missing
    view = _View.of(list(known.values()))
    shown = [one for one in places if one.region in known]
    spots = _spots(shown, known, view)
    parts = [f'<path d="{view.land()}" class="land"/>']
    most = max((way.requests_per_s for way in ways), default=1.0)
    parts += [
        _arc(spots[way.origin], spots[way.region], way, most)
        for way in ways
        if way.origin in spots and way.region in spots and way.origin != way.region
    ]
    parts += [_circle(one, spots[one.region]) for one in shown]
    parts += _labels(shown, spots)
    svg = (
        f'<div class="scroll"><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="map of regions" class="map">{"".join(parts)}</svg></div>'
    )
    return svg, missing


def located(region: str) -> tuple[float, float] | None:
    """Longitude and latitude."""
    by_region, by_town = _places()
    return by_region.get(region) or by_town.get(region.partition("/")[2].lower())


@cache
def _places() -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
    text = _data("places.csv")
    by_region: dict[str, tuple[float, float]] = {}
    by_town: dict[str, tuple[float, float]] = {}
    for row in csv.DictReader(StringIO(text)):
        where = float(row["longitude"]), float(row["latitude"])
        by_region[row["region"]] = where
        by_town.setdefault(row["town"].partition(",")[0].lower().replace(" ", "-"), where)
    return by_region, by_town


@cache
def _rings() -> list[list[float]]:
    return json.loads(_data("land.json"))["rings"]


def _data(name: str) -> str:
    return (resources.files("argosy.cli.planning") / "world" / name).read_text("utf-8")


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the world that is shown, equirectangular."""

    west: float
    north: float
    degrees: float  # of longitude, over the whole width

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> "_View":
        """Around these points, never nearer than `_DEGREES_MIN`."""
        west, east = min(x for x, _ in points) - _PAD, max(x for x, _ in points) + _PAD
        south, north = min(y for _, y in points) - _PAD, max(y for _, y in points) + _PAD
        ratio = _WIDTH / _HEIGHT
        degrees = min(360.0, max(east - west, (north - south) * ratio, _DEGREES_MIN))
        middle_x, middle_y = (west + east) / 2, (north + south) / 2
        left = max(-180.0, min(180.0 - degrees, middle_x - degrees / 2))
        return cls(west=left, north=middle_y + degrees / ratio / 2, degrees=degrees)

    def at(self, longitude: float, latitude: float) -> tuple[float, float]:
        """Pixels."""
        scale = _WIDTH / self.degrees
        return (longitude - self.west) * scale, (self.north - latitude) * scale

    def land(self) -> str:
        """The path of all coasts."""
        parts: list[str] = []
        # A coast may go on beyond the date line.
        for ring, turn in itertools.product(_rings(), (-360.0, 0.0, 360.0)):
            points = [
                self.at(ring[place] + turn, ring[place + 1]) for place in range(0, len(ring), 2)
            ]
            if any(-200 < x < _WIDTH + 200 and -200 < y < _HEIGHT + 200 for x, y in points):
                parts.append("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in points) + "Z")
        return "".join(parts)


def _spots(
    places: Sequence[Place], known: dict[str, tuple[float, float]], view: _View
) -> dict[str, Spot]:
    most = max((one.chips for one in places), default=0.0) or 1.0
    spots = {}
    for one in places:
        x, y = view.at(*known[one.region])
        radius = max(_RADIUS_MIN, _RADIUS_MAX * math.sqrt(one.chips / most)) if one.slices else 5.0
        spots[one.region] = Spot(x=x, y=y, radius=radius)
    for _ in range(60):
        _part(list(spots.values()))
    return spots


def _part(spots: Sequence[Spot]) -> None:
    """Push circles apart that lie on each other."""
    for place, one in enumerate(spots):
        for other in spots[:place]:
            wanted = one.radius + other.radius + 4
            dx, dy = one.x - other.x, one.y - other.y
            apart = math.hypot(dx, dy)
            if apart >= wanted:
                continue
            if apart < 1e-6:
                dx, dy, apart = 1.0, 0.0, 1.0
                push = wanted / 2
            else:
                push = (wanted - apart) / 2
            one.x, one.y = one.x + dx / apart * push, one.y + dy / apart * push
            other.x, other.y = other.x - dx / apart * push, other.y - dy / apart * push


def _circle(place: Place, spot: Spot) -> str:
    told = "".join(f"\n{one.name}: {short(round(one.chips, 1))} chips" for one in place.slices)
    title = f"<title>{escape(place.region + told)}</title>"
    at = f'cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="{spot.radius:.1f}"'
    if not place.chips:
        return f'<circle {at} class="client">{title}</circle>'
    parts, turn = [], 0.0
    for one in place.slices:
        share = one.chips / place.chips
        if share > 0.999:
            parts.append(f'<circle {at} fill="{one.colour}"/>')
        elif share > 0:
            parts.append(_pie(spot, turn, turn + share, one.colour))
        turn += share
    return f'<g>{title}{"".join(parts)}<circle {at} class="ring"/></g>'


def _pie(spot: Spot, begin: float, end: float, colour: str) -> str:
    def at(turn: float) -> str:
        angle = 2 * math.pi * turn - math.pi / 2
        x, y = spot.x + spot.radius * math.cos(angle), spot.y + spot.radius * math.sin(angle)
        return f"{x:.1f} {y:.1f}"

    large = 1 if end - begin > 0.5 else 0
    return (
        f'<path d="M{spot.x:.1f} {spot.y:.1f}L{at(begin)}A{spot.radius:.1f} {spot.radius:.1f} 0 '
        f'{large} 1 {at(end)}Z" fill="{colour}"/>'
    )


def _arc(begin: Spot, end: Spot, way: Way, most: float) -> str:
    """Bent upwards, as wide as its requests."""
    middle_x, middle_y = (begin.x + end.x) / 2, (begin.y + end.y) / 2
    bend = math.hypot(end.x - begin.x, end.y - begin.y) * 0.22
    width = 1.2 + 5 * way.requests_per_s / most
    told = escape(f"{way.origin} to {way.region}: {short(round(way.requests_per_s, 1))} requests/s")
    return (
        f'<path d="M{begin.x:.1f} {begin.y:.1f}Q{middle_x:.1f} {middle_y - bend:.1f} '
        f'{end.x:.1f} {end.y:.1f}" class="way" style="stroke-width:{width:.1f}">'
        f"<title>{told}</title></path>"
    )


def _labels(places: Sequence[Place], spots: dict[str, Spot]) -> list[str]:
    """Beside, below or above its circle: where it covers the least."""
    taken = [
        (one.x - one.radius, one.y - one.radius, one.x + one.radius, one.y + one.radius)
        for one in spots.values()
    ]
    parts = []
    for place in sorted(places, key=lambda one: -one.chips):
        spot = spots[place.region]
        lines = [place.region, f"{short(round(place.chips))} chips" if place.chips else "clients"]
        width = max(map(len, lines)) * _LABEL_W
        height = _LABEL_H * len(lines)
        gap = spot.radius + 5
        boxes = [
            (spot.x + gap, spot.y - height / 2),
            (spot.x - gap - width, spot.y - height / 2),
            (spot.x - width / 2, spot.y + gap),
            (spot.x - width / 2, spot.y - gap - height),
        ]
        x, y = min(boxes, key=lambda at: _covered((*at, at[0] + width, at[1] + height), taken))
        taken.append((x, y, x + width, y + height))
        for number, line in enumerate(lines):
            kind = "name" if number == 0 else "note"
            parts.append(
                f'<text x="{x:.1f}" y="{y + _LABEL_H * (number + 0.8):.1f}" class="{kind}">'
                f"{escape(line)}</text>"
            )
    return parts


_Box = tuple[float, float, float, float]


def _covered(box: _Box, taken: Sequence[_Box]) -> float:
    """Pixels that it shares with others, or that lie outside."""
    outside = max(0.0, -box[0]) + max(0.0, box[2] - _WIDTH)
    outside += max(0.0, -box[1]) + max(0.0, box[3] - _HEIGHT)
    total = outside * 100
    for other in taken:
        wide = min(box[2], other[2]) - max(box[0], other[0])
        high = min(box[3], other[3]) - max(box[1], other[1])
        total += max(0.0, wide) * max(0.0, high)
    return total
