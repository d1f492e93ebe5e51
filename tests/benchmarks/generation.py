"""How near generated fields come to held-out ones, for the autoencoder and the adversarial pair (Algorithm 3).

Trains on fields of images (scikit-learn's digits, or Fashion-MNIST), and prints JSON lines: the energy distance in L2 between
generated and test fields, at the resolution of training and at others, the floor (training against test fields), and as
negative controls the mean field, one training field repeated, and white noise. Draws sheets at twice the resolution of the
images: what is made, and what is real. Data of Fashion-MNIST: `$INRBRIDGE_DATA/data/fashion_mnist.npz`.

    python tests/benchmarks/generation.py --data digits --model gan --steps 3000 --out /tmp/digits-gan
    INRBRIDGE_DATA=.. python tests/benchmarks/generation.py --data fashion --model vae --steps 2000 --out /tmp/fashion-vae
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from inrbridge import Box, generate, sampling
from inrbridge.demo.digits import load_digits
from inrbridge.grid import GridField
from inrbridge.sheets import sheet
from inrbridge.stacking import FieldStack
from inrbridge.training import train
from inrbridge.training.seeding import Noise

BOX = Box.centered(2)
SIZES = {  # pixels of an image, points, resolution of the kernels and widths of generator and partner
    "digits": {"pixels": 8, "points": 128, "resolution": 8, "widths": [64, 32], "partner": [32, 64, 64]},
    "fashion": {"pixels": 28, "points": 256, "resolution": 16, "widths": [96, 48], "partner": [32, 64, 64]},
}
MODELS = {
    "vae": {"latent": 16, "beta": 4e-4, "encoder_options": {"norm": "batch"}},
    "gan": {"latent": 32, "penalty": 1e-4, "critic_rate": 3.0, "critic_options": {"norm": "layer", "activation": "silu"}},
}
OPTIMIZERS = {
    "vae": {"lr": 2e-3, "weight_decay": 0.0, "warmup": 50},
    "gan": {"lr": 3e-4, "betas": [0.0, 0.99], "weight_decay": 0.0, "clip": 0.0, "warmup": 50, "schedule": "constant"},
}


class Images:
    """Images as fields (cubic interpolation), what `train` asks of a dataset, without labels."""

    domain, channels, ranges, class_names = BOX, ("gray",), {}, []

    def __init__(self, images: torch.Tensor):
        self.images, self.formats = images, ["grid"] * len(images)
        self.template = GridField(images[0], BOX, interpolation="cubic", channel_names=("gray",))

    def __len__(self) -> int:
        return len(self.images)

    def stack(self, indices) -> FieldStack:
        return FieldStack.from_states(self.template, {"samples": self.images[list(indices)]})


def load(name: str, folder: Path | None) -> tuple[Images, Images]:
    if name == "digits":
        images, _ = load_digits()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        return Images(images[order[:1400]]), Images(images[order[1400:]])
    data = np.load(folder / "data" / "fashion_mnist.npz", allow_pickle=False)
    return tuple(Images(torch.from_numpy(data[k][:m]).float()[..., None] / 255) for k, m in (("x_train", 12000), ("x_test", 400)))


def energy(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float:
    """Energy distance of two sets of fields with values (k, n, c), a field and itself left out."""
    a, b = ((values * (weights / weights.sum()).sqrt()[:, None]).flatten(1).double() for values in (a, b))

    def within(x):
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))


@torch.no_grad()
def measure(model, train_set: Images, test_set: Images, points) -> dict:
    """Energy distances to the test fields at these points."""
    k, x = len(test_set), points.points
    test, known = test_set.stack(range(k))(x), train_set.stack(range(k))(x)
    vectors = Noise(range(k))(model.latent)
    made = torch.cat([model(part, None, points).values for part in vectors.split(64)])
    sets = {
        "generated": made,
        "floor: training fields": known,
        "control: mean field": known.mean(0, keepdim=True).expand_as(known),
        "control: one field repeated": known[:1].expand_as(known),
        "control: white noise": torch.rand(known.shape, generator=torch.Generator().manual_seed(0)),
    }
    return {name: round(energy(values, test, points.weights), 5) for name, values in sets.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=os.environ.get("INRBRIDGE_DATA"), help="of the data")
    parser.add_argument("--data", choices=SIZES, default="digits")
    parser.add_argument("--model", choices=MODELS, default="vae")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the run and the sheets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size, options = SIZES[args.data], dict(MODELS[args.model])
    partner = "encoder_options" if args.model == "vae" else "critic_options"
    shared = {"widths": size["partner"], "strides": [1, 2, 2], "resolution": size["resolution"]}
    options[partner] = {**shared, **options[partner]}
    options["generator_options"] = {"widths": size["widths"], "resolution": size["resolution"], "output": "sigmoid"}
    train_set, test_set = load(args.data, args.folder)
    started = time.process_time()
    run = train({
        "task": "generation", "data": {"batch_size": args.batch}, "model": {"name": args.model, "options": options},
        "points": {"n": size["points"], "pool": 8}, "optimizer": {**OPTIMIZERS[args.model], "steps": args.steps},
        "run": {"out": str(args.out / "run"), "device": "cpu", "seed": args.seed, "eval_every": 0, "log_every": 100,
                "checkpoint_every": 250, "keep": 1},
    }, train_set, eval_dataset=test_set, resume=args.resume, progress=True)  # fmt: skip
    facts = {"data": args.data, "model": args.model, "steps": run.steps, "seed": args.seed}
    seconds = round(time.process_time() - started)
    print(json.dumps({**facts, "cpu_seconds": seconds, **{k: v for k, v in run.metrics.items() if k in ("energy", "mse")}}))
    for n in (size["points"], 2 * size["points"], 4 * size["points"]):
        points = sampling.lattice(BOX, n, torch.Generator().manual_seed(99))
        print(json.dumps({**facts, "sampler": "lattice", "n": n, **measure(run.model, train_set, test_set, points)}), flush=True)
    pixels = 2 * size["pixels"]
    sheet(generate(run.model, 64, seed=1, points=size["points"]), args.out / "made.png", resolution=pixels)
    sheet(list(test_set.stack(range(64))), args.out / "real.png", resolution=pixels)


if __name__ == "__main__":
    main()
