"""``ExactMaps``: the map by which each resize of a model registers its output, as audits found it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..grids import ForwardPass, Resize, Site
from ..grids.sites import Size
from ..ops import AxisMap, Coordinates, PixelGrid, PixelModel
from ..ops.grid import axis_maps

_OVERSHOOT = 1.5


@dataclass
class ExactMaps:
    """Findings of audits about the resizes of a model, at one size or at all.

    Args:
        exact: the exact map of each site; where points are sampled, the map from the samples that the caller asks for
            to those that are exact.
        modes: interpolation modes that the audits saw there.
        unpositioned: sites that resize something without a position.
        varying: sites that have other maps at other sizes.
        levels: grids of the backbone's outputs.
        calls: what the audits saw, as (site, size of what is resized, size that it is resized to).
        unreachable: resizes that no policy sees.
        places: paths of all modules that resize.
        points: some sample at points of a grid.
    """

    exact: dict[Site, PixelModel] = field(default_factory=dict)
    modes: dict[Site, str] = field(default_factory=dict)
    unpositioned: set[Site] = field(default_factory=set)
    varying: set[Site] = field(default_factory=set)
    levels: list[PixelGrid] = field(default_factory=list)
    calls: set[tuple[Site, Size, Size]] = field(default_factory=set)
    unreachable: set[Site] = field(default_factory=set)
    places: frozenset[str] = frozenset()
    points: bool = False

    @classmethod
    def of(cls, audits: Sequence[ForwardPass]) -> "ExactMaps":
        """Find, for every resize of something with a position, what describes its exact map in all ``audits``."""
        known = cls(levels=[level for result in audits[:1] for level in result.levels if level is not None])
        known.places = frozenset(resize.path for result in audits for resize in result.trace.resizes)
        known.points = any(resize.mode == "point_sample" for result in audits for resize in result.trace.resizes)
        found: dict[Site, list[Resize]] = {}
        for result in audits:
            for resize_ in result.trace.resizes:
                if not resize_.reachable:
                    known.unreachable.add(resize_.site)
                elif resize_.maps:
                    found.setdefault(resize_.site, []).append(resize_)
                    known.calls.add((resize_.site, tuple(resize_.source_size), tuple(resize_.called_with)))
        for site, resizes in found.items():
            if any(r.source is None for r in resizes):
                known.unpositioned.add(site)
                continue
            own = resizes[0].mode.startswith("nearest") or resizes[0].mode in ("grid_sample", "point_sample")
            if own and not any(site in result.maps for result in audits):
                continue  # right as it is, nearest on average
            pixel_model = _common_pixel_model(resizes) if len(resizes) == len(audits) else None
            known.modes[site] = resizes[0].mode
            if pixel_model is None:
                known.varying.add(site)
            else:
                known.exact[site] = pixel_model
        return known


def _common_pixel_model(resizes: list[Resize]) -> PixelModel | None:
    """Return what describes a site's maps at every size, the same maps or the same convention; None if nothing does."""
    first = resizes[0]
    maps = [_changes(r) if r.asked else r.maps for r in resizes]
    if all(close(each, maps[0]) for each in maps):
        return maps[0]
    if first.asked:
        return None
    conventions: tuple[Coordinates, ...] = ("half_pixel", "align_corners", "asymmetric")
    for name in conventions:
        if all(close(r.maps, axis_maps(name, r.source_size, r.size)) for r in resizes):
            return name
    return None


def _changes(resize: Resize) -> tuple[AxisMap, ...]:
    """Return the maps from the samples that the caller of a sampling at points asks for to those that are read."""
    same = AxisMap(1.0, 0.0)  # where all coordinates read one sample, whatever they are
    return tuple(
        reads.after(asked.inverse()) if asked.scale else same
        for reads, asked in zip(resize.maps, resize.asked, strict=True)
    )


def covers(map: AxisMap, source_size: int, size: int) -> bool:
    """Tell whether ``map`` reads about as many samples as there are: one of another stride reads half or twice as many.

    Doubling what was rounded up overshoots: of 683 pixels stride 32 has 22 samples, doubled to stride 4 176, not 171.
    """
    read = map.scale * size
    return abs(source_size - read) <= 1 + 1e-6 or 1 / _OVERSHOOT < source_size / read < _OVERSHOOT


def close(a: Sequence[AxisMap], b: Sequence[AxisMap]) -> bool:
    """Tell whether two lists of maps read the same samples to rounding."""
    return all(x.is_close(y) for x, y in zip(a, b, strict=True))
