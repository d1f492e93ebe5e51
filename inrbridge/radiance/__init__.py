"""Floor 7: radiance fields: cameras, volume rendering through nerfacc, and where in space matter is.

A radiance field gives red, green, blue in [0, 1] and density per unit of length, on a Box in 3-D or on its product with
the unit sphere of directions: `Product(Box(low, high), Sphere())`, the direction that of the ray, from the camera into
the scene. Fields of an sdf or an occupancy are rendered as bodies. Needs nerfacc: pip install "inrbridge[render]".
"""

from inrbridge.radiance.cameras import Camera, Rays, focal_length, look_at, orbit
from inrbridge.radiance.marching import Rendering, composite, render, render_rays
from inrbridge.radiance.medium import Medium
from inrbridge.radiance.occupancy import Occupancy, OccupancySampler
from inrbridge.radiance.pictures import default_camera, photograph, turntable
from inrbridge.radiance.views import Views, is_views, read_poses, read_views

__all__ = [
    "Camera",
    "Medium",
    "Occupancy",
    "OccupancySampler",
    "Rays",
    "Rendering",
    "Views",
    "composite",
    "default_camera",
    "focal_length",
    "is_views",
    "look_at",
    "orbit",
    "photograph",
    "read_poses",
    "read_views",
    "render",
    "render_rays",
    "turntable",
]
