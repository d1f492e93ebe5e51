"""Floor 9: `inrbridge fit` of posed images: one radiance field instead of a store of signals."""

from __future__ import annotations

import json
from pathlib import Path

UNUSED = {"labels": None, "split": None, "key": None, "stacked": False, "channels": "auto", "oversample": 2.0, "batch": 512}


def fit_posed(args, options: dict) -> None:
    """Fit the images of `args.sources[0]` and write the field to a file, or into a new store."""
    import torch

    from inrbridge.cli.tables import print_facts
    from inrbridge.data.writer import StoreWriter
    from inrbridge.errors import ConfigError
    from inrbridge.fitting.views import fit_views
    from inrbridge.io import save_field
    from inrbridge.radiance import read_views
    from inrbridge.training.distributed import choose_device

    source, out = Path(args.sources[0]), Path(args.out)
    unfit = [f"--{name}" for name, default in UNUSED.items() if getattr(args, name) != default]
    if unfit or "," in args.format or len(args.sources) > 1:
        what = unfit[0] if unfit else "several formats" if "," in args.format else f"{len(args.sources)} sources"
        raise ConfigError(f"Got {what} for posed images, expected one file or folder of them, fitted in one format.")
    is_file = out.suffix == ".safetensors"
    if (out.exists() and is_file) or (out / "manifest.json").exists():
        raise ConfigError(f"{out} is there already, expected a new name; choose another with -o.")
    views = read_views(source).shrink(args.shrink)
    field = fit_views(
        args.format, views.images, views.poses, views.focal, steps=args.steps, lr=args.lr, rays=args.points or 1024,
        background=_background(args.background), generator=torch.Generator().manual_seed(args.seed), progress=True,
        device=None if args.device is None else str(choose_device(args.device)), **options,
    )  # fmt: skip
    if is_file:
        save_field(field, out)
    else:
        with StoreWriter(out) as writer:
            writer.add(field, name=source.stem, psnr=field.psnr)
    psnr = None if field.psnr is None else round(field.psnr, 2)
    facts = {"field": str(out), "format": args.format, "views": len(views), "psnr_held_out": psnr}
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    print_facts([("field", facts["field"]), ("views", len(views)), ("PSNR of held-out views", f"{psnr} dB")])
    print(f"\nnext: inrbridge preview {out}{'' if is_file else ' --item 0'} --turntable 24 -o turn.gif")


def _background(text: str | None) -> str | list[float] | None:
    from inrbridge.cli.preview import colour

    return None if text is None else colour(text)
