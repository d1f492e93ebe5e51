"""Floor 6: decode the files that signals come from; no size is believed unchecked, and nothing in a file is executed."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inrbridge.errors import CannotOpen, ConfigError, MissingDependency, MissingFile

IMAGES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npy", ".npz")
SOUNDS = (".wav",)
SUFFIXES = IMAGES + ARRAYS + SOUNDS
MAX_BYTES = 2**32  # of one array


def check_file(path: Path) -> None:
    """Raise unless the path leads to a file."""
    if not path.exists():
        raise MissingFile(f"There is no file {path}; check the path.")
    if path.is_dir():
        raise CannotOpen(f"Got the folder {path}, expected a file; read a whole folder with read_signals.")


def read_image(path: Path, background: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return samples (height, width, 1 or 3) in [0, 1] and channel names; what is transparent shows the background."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingDependency('Reading images needs pillow: pip install "inrbridge[plot]"') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                pixels, names = _pixels(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CannotOpen(f"{path} is not a whole PNG or JPEG image ({error}); write it anew.") from error
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1:]
        pixels = pixels * alpha + background * (1 - alpha)
    return pixels, names


def _pixels(image) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (height, width, 1..4) in [0, 1]: grey or colours, with alpha last where the image has it."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image, np.float32)[..., None] / 65535, ("gray",)
    transparent = "A" in image.mode or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA")
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image.convert(mode), np.float32) / 255
    return pixels.reshape(*pixels.shape[:2], -1), ("gray",) if grey else ("red", "green", "blue")


def read_sound(path: Path) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return samples (time, channels) in [-1, 1] and the names of one or two channels."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*EOF.*")
            warnings.filterwarnings("ignore", message=".*not understood.*", category=wavfile.WavFileWarning)
            _, samples = wavfile.read(path)
    except Exception as error:  # the parser raises struct.error, ValueError, MemoryError and more for damaged headers
        raise CannotOpen(f"{path} is not a whole WAV sound ({error}); write it anew.") from error
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    names = {1: ("sound",), 2: ("left", "right")}.get(samples.shape[1])
    return samples.astype(np.float32), names


def read_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read one array of a .npy or .npz file; what a header promises is compared with the file before memory is taken.

    Raises:
        MissingFile, CannotOpen: the file is not there, damaged, or holds Python objects.
        ConfigError: the .npz file holds no array of this name, or several and `key` is None.
    """
    path = Path(path)
    check_file(path)
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                _check_header(path, stream, path.stat().st_size)
            return np.load(path, allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            member = _member(path, archive.files, key)
            with archive.zip.open(f"{member}.npy") as stream:
                _check_header(path, stream, archive.zip.getinfo(f"{member}.npy").file_size)
            return archive[member]
    except (CannotOpen, ConfigError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged files
        raise CannotOpen(
            f"{path} is not a whole NumPy file of plain numbers ({error}); write it anew with numpy.save."
        ) from error


def _member(path: Path, members: list[str], key: str | None) -> str:
    if key is None and len(members) == 1:
        return members[0]
    if key is None or key not in members:
        got = "no key" if key is None else f'the key "{key}"'
        raise ConfigError(
            f"Got {got} for {path}, expected one of: {', '.join(members) or '(it is empty)'}; pass key=... (--key NAME)."
        )
    return key


def _check_header(path: Path, stream: BinaryIO, held: int) -> None:
    """Compare what an array's header promises with the bytes that are held, before memory is taken."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    promised = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise CannotOpen(f"{path} holds Python objects, which would have to run code; expected plain numbers.")
    if promised > held:
        raise CannotOpen(f"{path} promises {promised} bytes of numbers and holds {held}; write it anew.")
    if promised > MAX_BYTES:
        raise CannotOpen(f"{path} holds {promised / 2**30:.1f} GiB, expected at most {MAX_BYTES / 2**30:.0f}; cut it into parts.")


def read_labels(place: str | Path) -> list[str | int]:
    """Read labels from FILE.npy, FILE.npz:KEY, or a text file with one a line.

    Raises:
        MissingFile, CannotOpen: the file is not there, or holds neither texts nor whole numbers.
    """
    path, _, key = str(place).rpartition(":") if ".npz:" in str(place) else (str(place), "", None)
    path = Path(path)
    if path.suffix.lower() not in ARRAYS:
        check_file(path)
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotOpen(f"{path} is no text ({error}), expected a label a line.") from error
    found = read_array(path, key)
    if found.ndim != 1 or found.dtype.kind not in "iuUb":
        raise CannotOpen(f"{path} holds {found.dtype} of shape {found.shape}, expected one text or whole number for each signal.")
    return found.astype(int).tolist() if found.dtype.kind == "b" else found.tolist()
