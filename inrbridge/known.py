"""Floor 7: plugins that exist but need not be installed, so that an error can name the line that installs them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inrbridge.formats import Probe


@dataclass(frozen=True)
class KnownPlugin:
    """What a plugin reads, and the names (of container, file or tensors) by which one guesses that a file is its."""

    summary: str
    suffixes: tuple[str, ...]
    traces: str

    def matches(self, probe: Probe) -> bool:
        """Say whether the file looks like one of this plugin's: a hint for a message, never a decision."""
        seen = [f"<{probe.magic}>", probe.path.name, *probe.listing, *probe.bare_tensors]
        seen += [f"{dtype} {name}" for name, dtype in probe.dtypes.items()]
        return any(re.search(self.traces, text) for text in seen)


KNOWN_PLUGINS = {
    "siren": KnownPlugin(
        "SIREN network",
        (".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".h5", ".hdf5"),
        r"^net\.net\.\d+\.0\.weight$|^(\d+\.)?net\.\d+\.linear\.weight$|^(net\.)?last_layer\.(linear\.)?weight$|^seq\.\d+\.weight$"
        r"|^\d+\.weight$|modulated_siren/|^(train|test)\.modulation$|^0000\.dense\.A$|^rbf_layer\.centres$",
    ),
    "fourier": KnownPlugin(
        "Fourier feature network",
        (".safetensors", ".pt", ".pth", ".npy", ".pkl"),
        r"^([\w.]+\.)?(b|_?B|b_matrix|[Bb]_gauss|bvals)$|^filters\.\d+\.linear\.weight$|^([\w.]+\.)?layers\.\d+\.layers\.0\.weight$",
    ),
    "ngp": KnownPlugin(
        "instant-ngp snapshot or hash grid",
        (".ingp", ".msgpack", ".pth", ".ckpt"),
        r"^<msgpack>$|\.ingp$|^encoder\.(embeddings|params)$|^xyz_encoder\.params$|mlp_base\S*params$|hash_table$|^_model\.field\."
        r"|^embed_fn_state_dict\.|^triplane$",
    ),
    "plenoxels": KnownPlugin(
        "Plenoxel grid or PlenOctree", (".npz",), r"^(density_data|sh_data|invradius3?|data_retained|quant_colors)$"
    ),
    "nerf": KnownPlugin(
        "NeRF network",
        (".safetensors", ".tar", ".npy", ".ckpt", ".pt", ".pth"),
        r"pts_linears\.0|layers_xyz\.0|xyz_encoding_1\.0|mlp\.base\.hidden_layers|fc_noact|field_(fine|coarse)\.|^model_(fine_)?\d+\.npy$",
    ),
}


def pip_line(name: str) -> str:
    """Return the command that installs a known plugin."""
    return f"pip install inrbridge-{name}"
