"""Floor 7: pinhole cameras, and where they stand.

A pose is a matrix (4, 4) from camera to world coordinates with OpenGL axes: x to the right, y up, and the camera looks
along -z. Angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name

AXES = {f"{sign}{name}": (a, -1.0 if sign else 1.0) for sign in ("", "-") for a, name in enumerate("xyz")}
FIELD_OF_VIEW = 0.6911112  # radians along the width, that of the Blender scenes of NeRF (Mildenhall et al. 2020)


@dataclass(frozen=True)
class Rays:
    """Rays with origins (n, 3) and unit directions (n, 3); near and far (n,) are distances along them."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, rows) -> Rays:
        return Rays(self.origins[rows], self.directions[rows], self.near[rows], self.far[rows])

    def to(self, *args, **kwargs) -> Rays:
        """Return the rays on another device or in another dtype."""
        return Rays(*(value.to(*args, **kwargs) for value in (self.origins, self.directions, self.near, self.far)))

    def points(self, distances: Tensor) -> Tensor:
        """Return the points (n, s, 3) at distances (n, s)."""
        return self.origins[:, None] + distances[..., None] * self.directions[:, None]


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Args:
        pose: (4, 4) camera to world, OpenGL axes.
        focal: in pixels.
        near, far: planes across the view between which it sees, in world units along the optical axis.
        offset: where in its cell a pixel looks: 0.5 the centre; 0 the corner, as the first NeRF codes do.
    """

    pose: Tensor
    focal: float
    height: int
    width: int
    near: float = 0.0
    far: float = math.inf
    offset: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "pose", check_pose(self.pose))
        if not (self.focal > 0 and self.height > 0 and self.width > 0):
            raise ConfigError(f"Got focal {self.focal} and {self.height} x {self.width} pixels, expected numbers above 0.")
        if not 0 <= self.near < self.far:
            raise ConfigError(f"Got near = {self.near} and far = {self.far}, expected 0 <= near < far.")

    def rays(self) -> Rays:
        """Return the rays of all pixels, row by row: height * width of them, in the pose's dtype and on its device."""
        row, column = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        row, column = (index.reshape(-1).to(self.pose.device) for index in (row, column))
        return pixel_rays(self.pose.expand(len(row), 4, 4), self, row, column)


def pixel_rays(poses: Tensor, camera: Camera, row: Tensor, column: Tensor) -> Rays:
    """Return the rays of n pixels (row, column) of cameras with poses (n, 4, 4), else like `camera`."""
    down = (row.to(poses.dtype) + camera.offset - camera.height / 2) / camera.focal
    right = (column.to(poses.dtype) + camera.offset - camera.width / 2) / camera.focal
    seen = torch.stack([right, -down, -torch.ones_like(down)], -1)  # camera axes, one unit along the optical axis
    stretch = seen.norm(dim=-1)  # of a unit of depth along a ray
    directions = (poses[:, :3, :3] * (seen / stretch[:, None])[:, None]).sum(-1)
    return Rays(poses[:, :3, 3], directions, camera.near * stretch, camera.far * stretch)


def check_pose(pose: object) -> Tensor:
    """Return a pose as a floating-point tensor (4, 4); a (3, 4) one gets its last row.

    Raises:
        ShapeMismatch: another shape, or numbers that are no rotation and place.
    """
    matrix = torch.as_tensor(pose)
    matrix = matrix if matrix.is_floating_point() else matrix.float()
    if matrix.shape == (3, 4):
        matrix = torch.cat([matrix, matrix.new_tensor([[0, 0, 0, 1]])])
    if matrix.shape != (4, 4):
        raise ShapeMismatch(f"Got a pose of shape {tuple(matrix.shape)}, expected (4, 4): camera to world, OpenGL axes.")
    turn = matrix[:3, :3].double()
    if not bool(matrix.isfinite().all()) or (turn @ turn.T - torch.eye(3, device=turn.device)).abs().max() > 1e-2:
        raise ShapeMismatch("Got a pose whose columns 0 to 2 are no rotation, expected orthonormal axes; take scale out of it.")
    return matrix


def look_at(eye: Sequence[float], target: Sequence[float] = (0.0, 0.0, 0.0), up: str = "z") -> Tensor:
    """Return the pose (4, 4) of a camera at `eye` that looks at `target`; `up` names an axis: "z", "-y", ..."""
    if up not in AXES:
        raise unknown_name("axis", up, AXES)
    place, aim = (torch.tensor([float(v) for v in point], dtype=torch.float64) for point in (eye, target))
    if place.shape != (3,) or aim.shape != (3,) or torch.equal(place, aim):
        raise ConfigError(f"Got a camera at {tuple(eye)} that looks at {tuple(target)}, expected two different points in space.")
    axis, sign = AXES[up]
    upward = torch.zeros(3, dtype=torch.float64)
    upward[axis] = sign
    back = (place - aim) / (place - aim).norm()
    right = torch.linalg.cross(upward, back)
    if right.norm() < 1e-9:  # straight from above or below
        right = torch.zeros(3, dtype=torch.float64)
        right[(axis + 1) % 3] = 1.0
    right = right / right.norm()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = torch.stack([right, torch.linalg.cross(back, right), back, place], dim=1)
    return pose.float()


def orbit(theta: float, phi: float, radius: float, *, target: Sequence[float] = (0.0, 0.0, 0.0), up: str = "z") -> Tensor:
    """Return the pose (4, 4) of a camera on a sphere around `target`, looking at it.

    The angles are those of the NeRF codes (`pose_spherical`), in radians: theta turns around the upward axis, from 0 at
    the second axis after it (y for z), and -phi is the height above the horizon. With z up the camera stands at
    radius (sin theta cos phi, cos theta cos phi, -sin phi) from the target.
    """
    if up not in AXES:
        raise unknown_name("axis", up, AXES)
    if not (radius > 0 and math.isfinite(radius) and math.isfinite(theta) and math.isfinite(phi)):
        raise ConfigError(f"Got theta {theta}, phi {phi}, radius {radius}, expected finite numbers and a radius above 0.")
    axis, sign = AXES[up]
    away = [0.0, 0.0, 0.0]
    away[(axis + 1) % 3] = math.sin(theta) * math.cos(phi)
    away[(axis + 2) % 3] = sign * math.cos(theta) * math.cos(phi)
    away[axis] = -sign * math.sin(phi)
    return look_at([t + radius * a for t, a in zip(target, away, strict=True)], target, up)


def focal_length(width: int, angle: float | None = None) -> float:
    """Return the focal length in pixels of a camera that sees `angle` radians along its width; default 0.691 (39.6 degrees)."""
    angle = FIELD_OF_VIEW if angle is None else angle
    if not 0 < angle < math.pi:
        raise ConfigError(f"Got the angle of view {angle:.6g}, expected radians above 0 and below pi.")
    return 0.5 * width / math.tan(0.5 * angle)
