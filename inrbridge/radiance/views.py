"""Floor 7: photographs with the poses of their cameras: an .npz file, or a folder with transforms.json (Blender, NeRF).

An .npz holds `images` (n, h, w, 3 or 4), uint8 or in [0, 1], `poses` (n, 4, 4) and `focal` in pixels (or `camera_angle_x`).
A folder holds transforms.json or transforms_SPLIT.json with `camera_angle_x` (or `fl_x`) and frames of `file_path` and
`transform_matrix`. Poses are camera to world with OpenGL axes; alpha is straight, not premultiplied.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge.errors import CannotOpen, InrBridgeError, MissingDependency, ShapeMismatch
from inrbridge.formats import Probe
from inrbridge.radiance.cameras import Camera, Rays, check_pose, focal_length, pixel_rays

NEEDED = ("images", "poses")
MOST_TEXT = 2**26  # bytes
MOST_VALUES = 2**31  # of all images together
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Views:
    """Images (n, h, w, 3 or 4) in [0, 1] with poses (n, 4, 4) and one focal length in pixels."""

    images: Tensor
    poses: Tensor
    focal: float

    def __post_init__(self):
        images = torch.as_tensor(self.images)
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        poses = torch.as_tensor(self.poses).float()
        if images.ndim != 4 or images.shape[-1] not in (3, 4) or 0 in images.shape:
            raise ShapeMismatch(f"Got images of shape {tuple(images.shape)}, expected (n, height, width, 3 or 4).")
        if poses.ndim != 3 or len(poses) != len(images):
            raise ShapeMismatch(f"Got poses of shape {tuple(poses.shape)}, expected ({len(images)}, 4, 4): one for each image.")
        if not bool(images.isfinite().all()) or float(images.min()) < 0 or float(images.max()) > 1:
            raise ShapeMismatch("Got images with values outside [0, 1], expected uint8 or numbers in [0, 1]; scale them.")
        if not (math.isfinite(float(self.focal)) and float(self.focal) > 0):
            raise ShapeMismatch(f"Got the focal length {self.focal}, expected pixels above 0.")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "poses", torch.stack([check_pose(pose) for pose in poses]))
        object.__setattr__(self, "focal", float(self.focal))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows) -> Views:
        return Views(self.images[rows], self.poses[rows], self.focal)

    def to(self, device) -> Views:
        """Return the views on another device."""
        return Views(self.images.to(device), self.poses.to(device), self.focal)

    def camera(self, index: int, **options) -> Camera:
        """Return the camera of an image; options: near, far, offset."""
        return Camera(self.poses[index], self.focal, *self.images.shape[1:3], **options)

    def rays(self, rows: Tensor, **options) -> Rays:
        """Return the rays of pixels (m,), numbered as the rows of `images.reshape(-1, c)`; options: near, far, offset."""
        _, h, w, _ = self.images.shape
        pixel = rows % (h * w)
        return pixel_rays(self.poses[rows // (h * w)], self.camera(0, **options), pixel // w, pixel % w)

    def shrink(self, factor: int) -> Views:
        """Return smaller images: the means of factor x factor pixels, colours weighted by alpha; a rest is cut off."""
        h, w, c = self.images.shape[1:]
        if not isinstance(factor, int) or not 1 <= factor <= min(h, w):
            raise ShapeMismatch(f"Got shrink={factor!r} for images of {h} x {w}, expected a whole number from 1 to {min(h, w)}.")
        images = self.images if c == 3 else torch.cat([self.images[..., :3] * self.images[..., 3:], self.images[..., 3:]], -1)
        images = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
        if c == 4:
            images = torch.cat([images[..., :3] / images[..., 3:].clamp(min=1e-6), images[..., 3:]], -1).clamp(0, 1)
        return Views(images, self.poses, self.focal / factor)


def is_views(path: str | Path) -> bool:
    """Say whether a path is an .npz of images and poses, or a folder with transforms.json."""
    path = Path(path)
    if path.is_dir():
        return bool(_transforms(path))
    if path.name.startswith("transforms") and path.suffix == ".json":
        return path.is_file()
    return path.suffix == ".npz" and path.is_file() and set(NEEDED) <= set(Probe(path).tensors)


def read_views(path: str | Path, split: str = "train") -> Views:
    """Read posed images from an .npz file, a transforms.json, or the folder of one.

    Args:
        split: which transforms_SPLIT.json of a folder that has no transforms.json.

    Raises:
        CannotOpen: something is missing or damaged, or an image lies outside the folder.
        MissingDependency: images in a folder need pillow.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_transforms(_choose(path, split))
        return _read_transforms(path) if path.suffix == ".json" else _read_npz(path)
    except InrBridgeError:
        raise
    except DAMAGE as error:
        raise CannotOpen(f"Cannot read posed images from {path}: {type(error).__name__}: {error}; check the file.") from error


def read_poses(path: str | Path) -> tuple[Tensor, float | None]:
    """Read camera poses (n, 4, 4), and the angle of view along the width in radians where the file tells it.

    The file is an .npy or .txt of one matrix, an .npz with `poses`, a transforms.json, or a .json with one matrix or a list.

    Raises:
        CannotOpen, ShapeMismatch: the file is damaged or holds no poses.
    """
    path = Path(path)
    angle = None
    try:
        if path.suffix == ".npz":
            arrays = _arrays(path, ("poses", "camera_angle_x"))
            poses, angle = arrays["poses"], arrays.get("camera_angle_x")
        elif path.suffix == ".json":
            told = _read_json(path)
            poses, angle = told, None
            if isinstance(told, dict):
                poses, angle = [frame["transform_matrix"] for frame in told["frames"]], told.get("camera_angle_x")
        elif path.suffix == ".npy":
            poses = _arrays(path, ("array",))["array"]
        else:
            _check_length(path)
            poses = np.loadtxt(path)
        angle = None if angle is None else float(angle)
        matrices = torch.as_tensor(np.asarray(poses, np.float32))
    except InrBridgeError:
        raise
    except DAMAGE as error:
        raise CannotOpen(f"Cannot read poses from {path}: {type(error).__name__}: {error}; check the file.") from error
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if matrices.ndim != 3 or not len(matrices):
        raise ShapeMismatch(f"Got poses of shape {tuple(matrices.shape)} in {path}, expected (4, 4) or (n, 4, 4).")
    return torch.stack([check_pose(pose) for pose in matrices]), angle


def _read_npz(path: Path) -> Views:
    arrays = _arrays(path, (*NEEDED, "focal", "camera_angle_x"))
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise CannotOpen(f"{path} has no array {' and no '.join(missing)}, expected images, poses and focal; it holds no views.")
    width = arrays["images"].shape[2] if arrays["images"].ndim == 4 else 1
    if "focal" in arrays:
        focal = float(arrays["focal"])
    elif "camera_angle_x" in arrays:
        focal = focal_length(width, float(arrays["camera_angle_x"]))
    else:
        raise CannotOpen(f"{path} tells neither focal nor camera_angle_x, expected one of them beside images and poses.")
    return Views(arrays["images"], arrays["poses"], focal)


def _arrays(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Read those of the wanted arrays that an .npz or .npy ("array") holds; their claimed sizes are checked first."""
    shapes = Probe(path).tensors
    held = [name for name in wanted if name in shapes]
    for name in held:
        if math.prod(shapes[name]) > MOST_VALUES:
            raise CannotOpen(f"{path} holds {name} of shape {shapes[name]}, expected at most {MOST_VALUES} values; shrink it.")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"array": loaded}
    with loaded:
        return {name: loaded[name] for name in held}


def _check_length(path: Path) -> None:
    if path.stat().st_size > MOST_TEXT:
        raise CannotOpen(f"{path} is {path.stat().st_size} bytes long, expected at most {MOST_TEXT} of text.")


def _read_json(path: Path):
    _check_length(path)
    return json.loads(path.read_text(encoding="utf-8"))


def _transforms(folder: Path) -> list[Path]:
    return sorted(folder.glob("transforms*.json"))


def _choose(folder: Path, split: str) -> Path:
    found = {path.name: path for path in _transforms(folder)}
    for name in (f"transforms_{split}.json", "transforms.json"):
        if name in found:
            return found[name]
    raise CannotOpen(f"{folder} holds no transforms_{split}.json and no transforms.json, expected one; found {list(found)[:5]}.")


def _read_transforms(path: Path) -> Views:
    told = _read_json(path)
    frames = told["frames"]
    if not isinstance(frames, list) or not frames:
        raise CannotOpen(f"{path} lists no frames, expected frames with file_path and transform_matrix.")
    images = _read_images([_inside(path.parent, frame["file_path"]) for frame in frames])
    width = images.shape[2]
    if "camera_angle_x" in told:
        focal = focal_length(width, float(told["camera_angle_x"]))
    elif "fl_x" in told:
        focal = float(told["fl_x"]) * width / float(told.get("w", width))
    else:
        raise CannotOpen(f"{path} tells neither camera_angle_x nor fl_x, expected the angle of view or the focal length.")
    return Views(images, torch.tensor([frame["transform_matrix"] for frame in frames], dtype=torch.float32), focal)


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a frame's image, .png where no suffix is told; it may not lead out of the folder."""
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise CannotOpen(f"The frame {name!r:.100} lies outside {folder}, expected images in it or below it.")
    if not path.is_file():
        path = path.with_name(path.name + ".png")
    if not path.is_file():
        raise CannotOpen(f"The frame {name!r:.100} has no image in {folder}; copy the images beside transforms.json.")
    return path


def _read_images(paths: Sequence[Path]) -> Tensor:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency('Reading images needs pillow: pip install "inrbridge[plot]"') from error
    arrays: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                size = image.size[0] * image.size[1] * 4 * len(paths)
                if size > MOST_VALUES:
                    raise CannotOpen(f"{len(paths)} images of {image.size} hold {size} values, expected at most {MOST_VALUES}.")
                has_alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
                arrays.append(np.asarray(image.convert("RGBA" if has_alpha else "RGB")))
        except (Image.DecompressionBombError, SyntaxError) as error:
            raise CannotOpen(f"Cannot read {path}: {error}") from error
        if arrays[-1].shape != arrays[0].shape:
            raise CannotOpen(f"{path} is of shape {arrays[-1].shape}, the first image of {arrays[0].shape}; expected equal ones.")
    return torch.from_numpy(np.stack(arrays))
