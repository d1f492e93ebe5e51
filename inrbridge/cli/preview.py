"""Draw a field to a PNG file: a curve in 1-D, an image in 2-D, slices in higher dimensions, a camera's view of a radiance field.

A field of a store is named by --item, by its name or number. A camera is placed by angles in degrees, by a file of poses, or
where it sees everything (a radiance field without further words; any field in space with --turntable).

examples:
  inrbridge preview net.safetensors -o net.png
  inrbridge preview store --item digit-0007 --resolution 512
  inrbridge preview lego.ckpt --camera "-180,-30,4" --near 2 --far 6 --resolution 200
  inrbridge preview lego.ckpt --turntable 24 -o lego.gif
"""

import json
import re
from pathlib import Path


def add_arguments(parser) -> None:
    parser._negative_number_matcher = re.compile(r"^-\.?\d")  # else "-180,-30,4" would count as an unknown option
    parser.add_argument("file", metavar="FILE", help="file or folder of a field, or a store with --item")
    parser.add_argument(
        "-o",
        "--out",
        metavar="PNG",
        help="picture to write (.gif: --turntable); default: named as FILE, in this folder, replacing none",
    )
    parser.add_argument("--item", metavar="NAME", help="name or number of a field in a store")
    parser.add_argument("--format", metavar="NAME", help="open with this format, whatever the file looks like")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the format's open")
    parser.add_argument("--resolution", metavar="N", type=int, default=256, help="points along the longest side")
    parser.add_argument("--axes", metavar="A,B", help="the one or two coordinates to draw along, counted from 0")
    parser.add_argument("--at", metavar="A=VALUE", action="append", default=[], help="value of a coordinate not drawn along")
    camera = parser.add_argument_group("a camera, for fields with density, sdf or occupancy in space")
    camera.add_argument("--camera", metavar="THETA,PHI[,RADIUS]", help="on an orbit, degrees; -PHI is the height")
    camera.add_argument("--pose", metavar="FILE", help="poses, camera to world, OpenGL axes: .npy, .npz, .txt or transforms.json")
    camera.add_argument("--turntable", metavar="N", type=int, help="N views all around: a contact sheet, or a .gif")
    camera.add_argument("--target", metavar="X,Y,Z", help="what an orbit turns around; default the middle")
    camera.add_argument("--up", metavar="AXIS", help="upward axis: x, y, z, -x, -y or -z; default the field's own, else z")
    camera.add_argument(
        "--angle", metavar="DEGREES", type=float, help="of view along the width; default: as the poses tell, or 39.6"
    )
    camera.add_argument("--near", metavar="X", type=float, default=0.0, help="nothing nearer is seen")
    camera.add_argument("--far", metavar="X", type=float, default=float("inf"), help="nothing farther is seen")
    camera.add_argument("--samples", metavar="N", type=int, default=256, help="along each ray")
    camera.add_argument("--background", metavar="COLOUR", default="white", help="white, black, or red,green,blue in 0..1")
    parser.add_argument("--title", metavar="TEXT", help="text above the picture")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.rendering import preview

    field, name = pick(args)
    out = Path(args.out) if args.out else free_name(name)
    axes = None if args.axes is None else [number(text, int, "--axes") for text in args.axes.split(",")]
    at = {number(text.partition("=")[0], int, "--at"): number(text.partition("=")[2], float, "--at") for text in args.at}
    path = preview(field, out, resolution=args.resolution, axes=axes, at=at or None, title=args.title,
                   camera=cameras(args, field), samples=args.samples, background=colour(args.background))  # fmt: skip
    if args.json:
        facts = {"picture": str(path), "domain": str(field.domain), "channels": field.channels}
        print(json.dumps({**facts, "format": getattr(field, "format", None)}, indent=2))
    else:
        print(path)


def cameras(args, field) -> list | None:
    """Place the cameras that are asked for."""
    import math

    from inrbridge import radiance
    from inrbridge.errors import ConfigError

    if args.pose is not None:
        if args.camera is not None or args.turntable is not None:
            raise ConfigError("Got --pose with --camera or --turntable, expected one way to place cameras; leave the others out.")
        poses, angle = radiance.read_poses(args.pose)
        angle = angle if args.angle is None else math.radians(args.angle)
        focal = radiance.focal_length(args.resolution, angle)
        return [radiance.Camera(pose, focal, args.resolution, args.resolution, args.near, args.far) for pose in poses]
    if args.camera is None and args.turntable is None:
        return None
    options = {"up": args.up, "near": args.near, "far": args.far}
    if args.camera is not None:
        theta, phi, *radius = numbers(args.camera, "--camera", (2, 3))
        options |= {"theta": math.radians(theta), "phi": math.radians(phi), "radius": radius[0] if radius else None}
    if args.target is not None:
        options["target"] = numbers(args.target, "--target", (3,))
    if args.angle is not None:
        options["angle"] = math.radians(args.angle)
    if args.turntable is not None:
        return radiance.turntable(field, args.turntable, args.resolution, **options)
    return [radiance.default_camera(field, args.resolution, **options)]


def colour(text: str) -> str | list[float]:
    """Read a background: a word, or three numbers."""
    return numbers(text, "--background", (3,)) if "," in text else text


def numbers(text: str, option: str, counts: tuple[int, ...]) -> list[float]:
    """Read numbers between commas."""
    from inrbridge.errors import ConfigError

    found = [number(part, float, option) for part in text.split(",")]
    if len(found) not in counts:
        raise ConfigError(f'Got {option} "{text}", expected {" or ".join(map(str, counts))} numbers between commas.')
    return found


def free_name(name: str) -> Path:
    """Return NAME.png, or the next free name beside it: the picture that a field was fitted to may be called so."""
    number, path = 1, Path(f"{name}.png")
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}.png")
    return path


def pick(args) -> tuple[object, str]:
    """Open the field that is asked for; return it with a name for its picture."""
    from inrbridge.cli.info import option
    from inrbridge.errors import ConfigError

    path = Path(args.file)
    if (path / "manifest.json").is_file():
        from inrbridge.data import Store

        store = Store(path)
        if args.item is None:
            raise ConfigError(f"{path} is a store of {len(store)} fields, expected one of them: --item {store.names[0]}")
        index = item_index(store, args.item)
        return store.field(index), store.names[index].replace("/", "-")
    if args.item is not None:
        raise ConfigError(f"Got --item for {path}, which is no store; leave it out.")
    from inrbridge.io import open_field

    return open_field(path, args.format, **dict(option(text) for text in args.set)), path.stem


def item_index(store, word: str) -> int:
    """Return the place of a field by its name, else by its number."""
    from inrbridge.errors import UnknownName, did_you_mean

    if word in store.names:
        return store.names.index(word)
    if word.isdigit() and int(word) < len(store):
        return int(word)
    listed = ", ".join(store.names[:5]) + (", ..." if len(store) > 5 else "")
    raise UnknownName(f'There is no field "{word}" in {store.path}; expected one of {listed}.{did_you_mean(word, store.names)}')


def number(text: str, kind: type, option: str):
    """Read one number of an option."""
    from inrbridge.errors import ConfigError

    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f'Got {option} "{text}", expected numbers, such as --axes 0,2 or --at 1=0.5.') from error
