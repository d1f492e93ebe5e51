"""Floor 7: pictures of fields: curves in 1-D, images in 2-D, slices in higher dimensions, a camera's view of radiance fields.

Coordinate 0 runs down the rows and coordinate 1 along the columns, as array axes do. A surface in space (a sphere) is drawn
over the unit square that maps onto it, areas in proportion. Points outside the domain stay transparent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from inrbridge.domains import Domain
from inrbridge.errors import CannotSave, ConfigError, InrBridgeError, MissingDependency, UnknownFormat
from inrbridge.field import Field, FunctionField, are_classes, channel_names, query
from inrbridge.radiance import Camera, Medium, photograph
from inrbridge.radiance.pictures import contact_sheet, default_camera, look, save_pictures
from inrbridge.transforms import channel_ranges

CURVE_POINTS = 2048
MOST_PICTURES = 8  # channels drawn; a field may have hundreds
CHUNK = 2**16  # points a call
INK, FAINT = "#333333", "#bbbbbb"
COLOURS = (("red", "green", "blue"), ("r", "g", "b"))
# of classes: told apart by most kinds of eyes (Okabe & Ito 2008), then in other shades
CLASS_COLOURS = ("#999999", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#332288", "#882255")


def preview(
    field: Field,
    path: str | Path | None = None,
    *,
    resolution: int = 256,
    axes: Sequence[int] | None = None,
    at: Mapping[int, float] | None = None,
    title: str | None = None,
    camera: Camera | Sequence[Camera] | None = None,
    samples: int = 256,
    background: str | Sequence[float] = "white",
) -> Path | np.ndarray:
    """Draw a field.

    A radiance field (colours and density in space) is seen by a camera, with slices of its density beside; all other fields
    are drawn as curves, images and slices. Where the channels are shares of classes, an image shows the largest share by the
    colour of its class, the paler the smaller it is.

    Args:
        path: the PNG file to write, or a .gif for several cameras; None returns the picture instead.
        resolution: points along the longest side of an image.
        axes: the one or two coordinates to draw along; default all of them up to 2-D, then the three planes of the first
            three coordinates.
        at: values of coordinates that are not drawn along, e.g. {2: 0.5}; default the middle of the domain.
        title: text above the picture; without one, what cameras see is written pixel by pixel.
        camera: one camera, or several for a contact sheet or a moving picture (see `inrbridge.radiance.turntable`); they have
            their own resolution.
        samples, background: of volume rendering, see `inrbridge.radiance.render`.

    Returns:
        The path, or the picture as uint8 (height, width, 3).

    Raises:
        MissingDependency: matplotlib, or for a camera nerfacc, is not installed.
        ConfigError: axes or coordinates that the field does not have, or no matter that a camera could see.
    """
    cameras = [camera] if isinstance(camera, Camera) else list(camera or ())
    if path is not None and Path(path).suffix.lower() not in ((".png", ".gif") if len(cameras) > 1 else (".png",)):
        raise ConfigError(f"Got the picture's name {path}, expected one that ends in .png (or .gif, of several cameras).")
    if not 2 <= resolution <= 8192:
        raise ConfigError(f"Got resolution={resolution}, expected 2 to 8192 points along a side.")
    if cameras:
        if axes is not None or at:
            raise ConfigError("Got a camera and axes or values to slice at, expected one of them; leave the other out.")
        pictures = photograph(field, cameras, samples=samples, background=background)
        if title is None or (path is not None and Path(path).suffix.lower() == ".gif"):
            return contact_sheet(pictures) if path is None else save_pictures(pictures, path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency('Drawing needs matplotlib: pip install "inrbridge[plot]"') from error

    figure = Figure(layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    generic = axes is None and at is None and not cameras
    own = contact_sheet(pictures) if cameras else _format_picture(field) if generic else None
    if own is not None:
        _draw_own(figure, own)
    elif generic and (medium := _radiance_of(field)) is not None:
        _draw_radiance(figure, field, medium, resolution, samples, background)
    else:
        _draw_views(figure, field, _Chart.of(field.domain), resolution, axes, dict(at or {}))
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    if path is None:
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CannotSave(f"Cannot write {path} ({error}); check that its folder exists and has room.") from error
    return Path(path)


@dataclass(frozen=True)
class _Chart:
    """The box over which a domain is drawn: its own bounds, or the unit cube where the domain is a surface."""

    domain: Domain
    low: tuple[float, ...]
    high: tuple[float, ...]
    letter: str
    unit: bool

    @classmethod
    def of(cls, domain: Domain) -> _Chart:
        if domain.intrinsic_dim < domain.dim:
            d = domain.envelope.unit_dim
            return cls(domain, (0.0,) * d, (1.0,) * d, "u", True)
        return cls(domain, *domain.bounds, "x", False)

    def values(self, field: Field, points: torch.Tensor) -> np.ndarray:
        """Evaluate at chart points (..., D): values (..., c), NaN outside the domain."""
        flat = points.reshape(-1, points.shape[-1])
        coords = self.domain.envelope.from_unit(flat) if self.unit else flat
        inside = self.domain.contains(coords)
        values = torch.full((len(flat), field.channels), math.nan)
        rows = inside.nonzero()[:, 0]
        with torch.no_grad():
            for part in rows.split(CHUNK):
                values[part] = query(field, coords[part]).detach().float().cpu()
        return values.reshape(*points.shape[:-1], field.channels).numpy()


def _draw_views(figure, field: Field, chart: _Chart, resolution: int, axes, at: dict[int, float]) -> None:
    views = _choose_axes(chart, axes, at)
    if axes is None and len(chart.low) == 2 and getattr(field, "axes", None) == ("x", "y"):
        views = [(1, 0)]  # x runs along the columns
    if len(views[0]) == 1:
        _draw_curve(figure, field, chart, views[0][0], at, max(resolution, CURVE_POINTS))
        return
    is_map = are_classes(field)
    pictures = [("classes", list(range(field.channels)))] if is_map else _pictures(channel_names(field))
    columns = len(views) if len(views) > 1 else min(4, len(pictures))
    rows = math.ceil(len(pictures) * len(views) / columns)
    wide = 4.4 if len(pictures) * len(views) == 1 else 2.6
    figure.figure.set_size_inches((wide + 0.8) * columns, (wide * _height_to_width(chart, views) + 0.6) * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    sampled = [chart.values(field, _plane(chart, view, at, resolution)) for view in views]
    for number, (label, indices) in enumerate(pictures):
        span = _span([plane[..., indices] for plane in sampled])
        for column, view in enumerate(views):
            panel = panels[number * len(views) + column]
            values = sampled[column][..., indices]
            shown = _class_map(values) if is_map else _shown(values, field, indices) if len(indices) == 3 else values
            _draw_plane(panel, chart, view, shown, label, span)
            caption = [label] if len(pictures) > 1 else []
            caption += [_spell_slice(chart, view, at)] if len(chart.low) > 2 else []
            panel.set_title("   ".join(caption), fontsize=9, color=INK)
    for panel in panels[len(pictures) * len(views) :]:
        panel.set_axis_off()
    if is_map:
        _name_classes(figure, channel_names(field), sampled)
    elif field.channels > sum(len(indices) for _, indices in pictures):
        figure.supxlabel(f"the first {MOST_PICTURES} of {field.channels} channels", fontsize=8, color=INK)


def _choose_axes(chart: _Chart, axes, at: dict[int, float]) -> list[tuple[int, ...]]:
    """Return the coordinates of each view, and complete `at` by the middle of the others."""
    d = len(chart.low)
    if axes is not None:
        views = [tuple(axes)]
        if len(views[0]) not in (1, 2) or len(set(views[0])) < len(views[0]) or not all(0 <= a < d for a in views[0]):
            raise ConfigError(f"Got axes {views[0]}, expected one or two different coordinates between 0 and {d - 1}.")
    else:
        views = [tuple(range(d))] if d <= 2 else [(0, 1), (0, 2), (1, 2)]
    for a, value in at.items():
        if not (0 <= a < d) or not chart.low[a] <= value <= chart.high[a]:
            where = f"between {chart.low[a]:g} and {chart.high[a]:g}" if 0 <= a < d else f"for a coordinate between 0 and {d - 1}"
            raise ConfigError(f"Got {value:g} for coordinate {a}, expected a value {where}.")
    for a in range(d):
        at.setdefault(a, (chart.low[a] + chart.high[a]) / 2)
    return views


def _middles(low: float, high: float, count: int) -> torch.Tensor:
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5).div(count).float()


def _plane(chart: _Chart, view: tuple[int, ...], at: Mapping[int, float], resolution: int) -> torch.Tensor:
    """Return chart points (rows, columns, D) in the middle of equal cells of a plane."""
    sides = [chart.high[a] - chart.low[a] for a in view]
    counts = [resolution if not _true_to_scale(sides) else max(2, round(resolution * s / max(sides))) for s in sides]
    points = torch.tensor([at[a] for a in range(len(chart.low))], dtype=torch.float32).expand(*counts, -1).clone()
    for index, a in enumerate(view):
        along = _middles(chart.low[a], chart.high[a], counts[index])
        points[..., a] = along[:, None] if index == 0 else along[None, :]
    return points


def _true_to_scale(sides: Sequence[float]) -> bool:
    return max(sides) / min(sides) <= 4  # a longer strip would be a line: it is stretched instead


def _height_to_width(chart: _Chart, views: Sequence[tuple[int, ...]]) -> float:
    if chart.unit:
        return 0.5
    sides = [[chart.high[a] - chart.low[a] for a in view] for view in views]
    return max(down / right if _true_to_scale((down, right)) else 0.6 for down, right in sides)


def _pictures(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Group channels into pictures: red, green and blue together, every other one alone."""
    lower = [name.lower() for name in names]
    for trio in COLOURS:
        if all(name in lower for name in trio):
            colour = [lower.index(name) for name in trio]
            break
    else:
        colour = [0, 1, 2] if lower == ["0", "1", "2"] else []
    alone = [(names[i], [i]) for i in range(len(names)) if i not in colour]
    return ([("colour", colour)] if colour else []) + alone[: MOST_PICTURES - bool(colour)]


def _shown(values: np.ndarray, field: Field, indices: Sequence[int]) -> np.ndarray:
    """Map colours from the ranges that the field states to [0, 1]."""
    ranges = [channel_ranges(field)[i] for i in indices]
    if any(pair is None or pair[0] >= pair[1] for pair in ranges):
        return values
    low, high = np.array(ranges, dtype=np.float32).T
    return (values - low) / (high - low)


def _class_colours(count: int) -> np.ndarray:
    """Return a colour for each class (count, 3); beyond those of the palette darker ones."""
    palette = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in CLASS_COLOURS]) / 255
    rounds = np.arange(count) // len(palette)
    return palette[np.arange(count) % len(palette)] * (0.65**rounds)[:, None]


def _class_map(shares: np.ndarray) -> np.ndarray:
    """Colour points by their largest share: (..., classes) -> (..., 3), NaN outside; an even split is nearly white."""
    count = shares.shape[-1]
    inside = ~np.isnan(shares[..., 0])
    largest = np.nan_to_num(shares).max(-1, keepdims=True)
    sure = ((largest - 1 / count) / max(1 - 1 / count, 1e-9)).clip(0, 1)
    colours = _class_colours(count)[np.nan_to_num(shares).argmax(-1)]
    return np.where(inside[..., None], 1 + (colours - 1) * (0.25 + 0.75 * sure), np.nan)


def _name_classes(figure, names: Sequence[str], planes: Sequence[np.ndarray]) -> None:
    """Put a legend under the panels, of those classes that occur."""
    from matplotlib.patches import Patch

    found = np.concatenate([plane[~np.isnan(plane[..., 0])].argmax(-1) for plane in planes])
    present = np.bincount(found, minlength=len(names)).nonzero()[0][: 4 * MOST_PICTURES]
    colours = _class_colours(len(names))
    patches = [Patch(color=colours[i], label=names[i]) for i in present]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)), frameon=False, fontsize=8)


def _span(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the least and greatest value over all planes, so that they share one scale."""
    finite = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _draw_plane(panel, chart: _Chart, view, values: np.ndarray, label: str, span: tuple[float, float]) -> None:
    outside = np.isnan(values[..., 0])
    down, right = view
    extent = (chart.low[right], chart.high[right], chart.high[down], chart.low[down])
    aspect = "equal" if _true_to_scale([chart.high[a] - chart.low[a] for a in view]) and not chart.unit else "auto"
    placed = {"extent": extent, "aspect": aspect, "interpolation": "nearest"}
    if values.shape[-1] == 3:
        colour = np.nan_to_num(values).clip(0, 1)
        panel.imshow(np.concatenate([colour, ~outside[..., None]], -1), **placed)
    else:
        plane = np.ma.masked_array(values[..., 0], outside)
        signed = label.lower() == "sdf" and span[0] < 0 < span[1]
        if signed:
            reach = min(max(-span[0], span[1]), 3 * min(-span[0], span[1]))  # the inside is thin: give it its share of colour
            shown = panel.imshow(plane, cmap="RdBu", vmin=-reach, vmax=reach, **placed)
            middles = [_middles(chart.low[a], chart.high[a], n).numpy() for a, n in zip(view, plane.shape, strict=True)]
            if plane.min() < 0 < plane.max():
                panel.contour(middles[1], middles[0], plane, levels=[0.0], colors=INK, linewidths=1.0)
        else:
            shown = panel.imshow(
                plane, cmap="magma" if label.lower() == "density" else "gray", vmin=span[0], vmax=span[1], **placed
            )
        bar = panel.figure.colorbar(shown, ax=panel, shrink=0.82, pad=0.02, aspect=28)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, colors=INK, length=2)
    if outside.any():
        panel.patch.set(facecolor="white", hatch="////", edgecolor="#e6e6e6", linewidth=0)
    panel.set_xlabel(f"{chart.letter}{right}", fontsize=8, color=INK)
    panel.set_ylabel(f"{chart.letter}{down}", fontsize=8, color=INK)
    _plain_frame(panel)


def _draw_curve(figure, field: Field, chart: _Chart, axis: int, at: Mapping[int, float], count: int) -> None:
    figure.set_size_inches(7.0, 3.2)
    panel = figure.subplots()
    along = _middles(chart.low[axis], chart.high[axis], count)
    points = torch.tensor([at[a] for a in range(len(chart.low))], dtype=torch.float32).expand(count, -1).clone()
    points[:, axis] = along
    values = chart.values(field, points)
    names = channel_names(field)[:MOST_PICTURES]
    palette = {n: c for trio in COLOURS for n, c in zip(trio, ("#d62728", "#2ca02c", "#1f77b4"), strict=True)}
    for i, name in enumerate(names):
        panel.plot(along.numpy(), values[:, i], linewidth=1.0, label=name, color=palette.get(name.lower(), f"C{i}"))
    panel.margins(x=0)
    panel.grid(color="#eeeeee", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_xlabel(f"{chart.letter}{axis}", fontsize=8, color=INK)
    panel.set_ylabel(names[0] if len(names) == 1 and not names[0].isdigit() else "value", fontsize=8, color=INK)
    if len(names) > 1:
        panel.legend(frameon=False, fontsize=8, ncols=min(4, len(names)), loc="lower right", bbox_to_anchor=(1, 1))
    if len(chart.low) > 1:
        panel.set_title(_spell_slice(chart, (axis,), at), fontsize=9, color=INK, loc="left")
    _plain_frame(panel)
    panel.spines[["top", "right"]].set_visible(False)


def _plain_frame(panel) -> None:
    panel.tick_params(labelsize=7, colors=INK, length=2)
    panel.spines[:].set(color=FAINT, linewidth=0.6)


def _spell_slice(chart: _Chart, view: Sequence[int], at: Mapping[int, float]) -> str:
    fixed = [f"{chart.letter}{a} = {at[a]:.3g}" for a in range(len(chart.low)) if a not in view]
    return ", ".join(fixed[:4]) + (", ..." if len(fixed) > 4 else "")


def _format_picture(field: Field) -> np.ndarray | None:
    """Return the picture that the field's own format draws (a camera's view of a radiance field), if it draws one."""
    from inrbridge.plugins import get_format

    name = getattr(field, "format", None)
    if not isinstance(name, str):
        return None
    try:
        image = get_format(name).preview(field)
    except UnknownFormat:  # a field made by hand: the generic drawing serves
        return None
    return None if image is None else np.asarray(image, np.float32).clip(0, 1)


def _draw_own(figure, image: np.ndarray) -> None:
    figure.set_size_inches(5.0, 5.0 * image.shape[0] / image.shape[1])
    panel = figure.subplots()
    panel.imshow(image, interpolation="nearest")
    panel.set_axis_off()


def _radiance_of(field: Field) -> Medium | None:
    """Return a field as a medium where it has colours and a density in space."""
    try:
        medium = Medium.of(field)
    except InrBridgeError:
        return None
    return medium if medium.colour and medium.kind == "density" else None


def _draw_radiance(figure, field: Field, medium: Medium, resolution: int, samples: int, background) -> None:
    """Draw what a camera sees, above slices of the density; the slices alone where nerfacc is not installed."""
    slices = FunctionField(lambda x: medium.density(x)[:, None], medium.positions, 1, ("density",))
    try:
        occupancy = look(field)
        view = default_camera(field, resolution, occupancy=occupancy)
        (picture,) = photograph(field, view, samples=samples, background=background, occupancy=occupancy)
    except MissingDependency:
        _draw_views(figure, slices, _Chart.of(medium.positions), resolution, None, {})
        return
    above, below = figure.subfigures(2, 1, height_ratios=(5, 3))
    _draw_views(below, slices, _Chart.of(medium.positions), min(resolution, 128), None, {})
    figure.set_size_inches(9.0, 8.5)
    panel = above.subplots()
    panel.imshow(picture, interpolation="nearest")
    panel.set_axis_off()
