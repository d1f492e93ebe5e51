"""What the benchmark of conversion tests nets on: CIFAR-10 classification and CamVid segmentation.

A task holds the discrete network and its test data, and shows the same things to the discrete and to the converted net: images
(`pixels`), and their fields at points (`values`).
"""

import math
from pathlib import Path

import numpy as np
import torch
from cifar_fields import BOX, cifar_fields, cifar_images
from discrete.cifar_resnet import load_cifar_resnet
from discrete.espnet import load_espnet
from PIL import Image
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.grid import GridField
from inrbridge.nn import Sampled
from inrbridge.sampling import grid
from inrbridge.stacking import FieldStack, stack

SCORED = 11  # classes of CamVid; the twelfth is what has no label
SMALL = (96, 128)  # pixels of the frames of which there are many
# The colours that CamVid gives to its classes; black is what has none.
PALETTE = np.array([(128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
                    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0)], np.uint8)  # fmt: skip


def percent(share: Tensor | float) -> float:
    return round(100 * float(share), 2)


class Task:
    """What both tasks share; subclasses say how outputs become decisions, and how those are scored.

    Args:
        module: the discrete network; it takes RGB in [0, 1] (b, 3, *resolution).
        images: (m, *resolution, 3).
        fields: the same m as fields on the square.
        batch: test images at a time.
        asked: further arguments of the converted net.
    """

    def __init__(self, module: torch.nn.Module, images: Tensor, fields: FieldStack, batch: int, asked: dict | None = None):
        self.module, self.images, self.fields, self.batch, self.asked = module, images, fields, batch, asked or {}
        self.count, self.resolution = len(images), tuple(images.shape[1:3])

    def batches(self) -> list[range]:
        return [range(i, min(i + self.batch, self.count)) for i in range(0, self.count, self.batch)]

    def pixels(self, some: range) -> Tensor:
        """Images as the discrete network takes them (b, 3, *resolution)."""
        return self.images[some.start : some.stop].permute(0, 3, 1, 2)

    @torch.no_grad()
    def values(self, some: range, points: Tensor) -> Tensor:
        """Their fields at points (n, 2): (b, n, 3)."""
        return stack([self.fields[i] for i in some])(points, check=False)


def cubic(images: Tensor) -> FieldStack:
    """Images (m, *resolution, 3) as fields, by cubic interpolation."""
    return FieldStack.from_states(GridField(images[0], BOX), {"samples": images})


class Classification(Task):
    """The first CIFAR-10 test images and a ResNet of 20 or 44 layers."""

    def __init__(self, depth: int, folder: Path, kind: str, count: int, kept: Path):
        images, self.classes = cifar_images(count, folder)
        fields, _ = cifar_fields(kind, count, folder, kept)
        self._folder = folder
        super().__init__(load_cifar_resnet(depth, folder), torch.from_numpy(images).float() / 255, fields, 64)

    def training(self, count: int) -> FieldStack:
        """Training images, by cubic interpolation whatever the kind of the fields that are tested."""
        return cifar_fields("cubic", count, self._folder, part="train")[0]

    def decide(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def scores(self, decided: Tensor) -> dict[str, float]:
        return {"accuracy": percent((decided == self.classes).float().mean())}


class Segmentation(Task):
    """Validation frames of CamVid and ESPNet. The output is asked for at the pixel centres.

    Args:
        resolution: "96x128" (101 frames); else "360x480" (8 frames) or a smaller part, cut from their centres.
    """

    def __init__(self, folder: Path, resolution: str, count: int):
        archive = np.load(Path(folder) / "data" / "camvid.npz", allow_pickle=False)
        shape = tuple(int(n) for n in resolution.split("x"))
        part = "val" if shape == SMALL else "val_360x480"
        images, labels = (archive[f"{kind}_{part}"][:count] for kind in "xy")
        first = [(n - m) // 2 for n, m in zip(labels.shape[1:], shape, strict=True)]
        cut = (slice(None), *(slice(a, a + m) for a, m in zip(first, shape, strict=True)))
        images = torch.from_numpy(images[cut]).float() / 255
        asked = {"at": grid(BOX, shape).points}
        super().__init__(load_espnet(folder), images, cubic(images), max(1, 2**16 // math.prod(shape)), asked)
        self._frames = archive["x_train"]
        self.labels = torch.from_numpy(labels[cut]).long().flatten(1)

    def training(self, count: int) -> FieldStack:
        """Training frames as fields; there are none but of 96x128 pixels."""
        return cubic(torch.from_numpy(self._frames[:count]).float() / 255)

    def decide(self, logits: Tensor) -> Tensor:
        """Classes (m, pixels) of an image (m, classes, *shape) or of values (m, pixels, classes)."""
        return logits.argmax(1).flatten(1) if logits.ndim == 4 else logits.argmax(2)

    def scores(self, decided: Tensor) -> dict[str, float]:
        """Intersection over union, the mean over the classes that occur, and the share of pixels; both of the labelled pixels."""
        known = self.labels < SCORED
        width = int(decided.max()) + 1 if decided.numel() else 1
        pairs = self.labels[known] * max(width, SCORED) + decided[known]
        table = torch.bincount(pairs, minlength=SCORED * max(width, SCORED)).view(SCORED, -1).double()
        both = table.diagonal()
        union = table.sum(1) + table.sum(0)[:SCORED] - both
        return {"miou": percent((both / union)[union > 0].mean()), "accuracy": percent(both.sum() / table.sum())}

    @torch.no_grad()
    def picture(self, net, points: Discretization, path: Path) -> None:
        """Write the first frame, its labels and what the nets say: the discrete one, the converted one at 1x and at 2x."""
        some = range(1)
        fine = tuple(2 * n for n in self.resolution)
        seen = Sampled(points, self.values(some, points.points))
        logits = [self.module(self.pixels(some)), *(net(seen, at=grid(BOX, shape).points) for shape in (self.resolution, fine))]
        classes = [self.labels[0], *(self.decide(part)[0] for part in logits)]
        shapes = [self.resolution] * 3 + [fine]
        tiles = [PALETTE[c.view(shape).numpy()] for c, shape in zip(classes, shapes, strict=True)]
        tiles = [np.uint8(255 * self.images[0].numpy()), *tiles]
        rows, columns = fine
        # two rows: image, labels and the discrete net on top; the converted one at 1x, and at 2x at its full size, below
        sheet = np.full((rows + rows // 2 + 8, columns + columns // 2 + 16, 3), 255, np.uint8)
        places = [(0, 0), (0, columns // 2 + 8), (0, columns + 16), (rows // 2 + 8, 0), (rows // 2 + 8, columns // 2 + 8)]
        for tile, (i, j) in zip(tiles, places, strict=True):
            sheet[i : i + tile.shape[0], j : j + tile.shape[1]] = tile
        Image.fromarray(sheet).save(path)
