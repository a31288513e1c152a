"""Reads BasicVSR checkpoints of other code bases: BasicSR and mmagic, also inside RealBasicVSR.

The network is the same as ours; names of tensors and the dictionaries around them differ. A checkpoint of another network is
refused. Code in a file is never run.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skipvsr.checkpoints.native import Checkpoint, check_weights, read_safetensors
from skipvsr.errors import CheckpointError
from skipvsr.models.config import VSRConfig
from skipvsr.models.flow import IMAGENET_MEAN, IMAGENET_STD, spynet

# Checkpoints of mmediting from before 24 April 2021 expect BGR; only the hash in the name of the file tells them apart.
_BGR_HASHES = ("9509fbd5", "e1b4961a", "d05ba7d1")

# In order of preference. A BasicSR file may hold averaged weights (params_ema) as well; BasicSR itself tests with `params` by
# default, so published numbers are those of `params`.
_WRAPPERS = ("params", "params_ema", "state_dict")

_REFUSED = (
    (("edvr.", "backward_fusion."), "this is IconVSR, which needs an EDVR feature extractor"),
    (("deform_align.", "feat_extract."), "this is BasicVSR++, another network"),
    (("fea_L2_conv1", "pcd_align."), "this is EDVR, another network"),
)
_IGNORED = re.compile(r"^(step_counter$|data_preprocessor\.|pixel_loss|discriminator|perceptual_loss|gan_loss)")


def read_foreign(path: Path) -> Checkpoint:
    """Read a BasicVSR checkpoint of BasicSR or mmagic; channels and blocks are inferred from the shapes of tensors.

    Args:
        path: a .pth file (of either serialisation format of torch) or a .safetensors file.

    Raises:
        CheckpointError: the file cannot be read without running code in it, is damaged, or holds another network.
    """
    for digest in _BGR_HASHES:
        if digest in path.name:
            raise CheckpointError(
                f"{path.name} is an early model of mmediting, which expects BGR; use a later one (-0e599677 or newer)"
            )
    flat, wrapper = _unwrap(_load(path), path)
    names, family = canonical_names(flat, path)
    weights = {_to_native(name): tensor.float() for name, tensor in names.items() if not _is_buffer(name, tensor, path)}
    config = _infer(weights, path)
    check_weights(weights, config, path)
    return Checkpoint(config, weights, {"family": family, "wrapper": wrapper})


def read_flow_weights(path: Path) -> dict[str, Tensor]:
    """Read a SPyNet checkpoint of BasicSR or mmagic, as weights of `skipvsr.models.flow.spynet()`.

    Raises:
        CheckpointError: the file cannot be read, or is not a SPyNet.
    """
    flat, _ = _unwrap(_load(path), path)
    flat = {name.removeprefix("spynet."): tensor for name, tensor in flat.items()}
    flow = {}
    for name, tensor in flat.items():
        if not _is_buffer(f"spynet.{name}", tensor, path):
            flow[_to_native(_spynet_name(f"spynet.{name}")).removeprefix("flow.")] = tensor.float()
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in spynet().state_dict().items()}
    if {name: tensor.shape for name, tensor in flow.items()} != expected:
        raise CheckpointError(f"{path} is not a SPyNet of BasicSR or mmagic: its tensors are not the 60 of SPyNet")
    return flow


def canonical_names(flat: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors by BasicSR's names, and the family that the checkpoint is from: "basicsr", "mmagic" or "realbasicvsr"."""
    flat = {name.removeprefix("module."): tensor for name, tensor in flat.items()}
    family = "mmagic" if any("_resblocks.main." in name for name in flat) else "basicsr"
    for prefix in ("generator_ema.", "generator."):
        if any(name.startswith(prefix) for name in flat):
            flat = {name.removeprefix(prefix): t for name, t in flat.items() if name.startswith(prefix)}
            break
    if any(name.startswith("image_cleaning.") for name in flat):
        family = "realbasicvsr"
        # Only the backbone is read; the cleaning network in front of it is left out.
        flat = {name.removeprefix("basicvsr."): t for name, t in flat.items() if name.startswith("basicvsr.")}
    for marks, reason in _REFUSED:
        if any(mark in name for name in flat for mark in marks):
            raise CheckpointError(f"{path} cannot be used: {reason}; give a checkpoint of plain BasicVSR")
    if flat and all(re.match(r"(spynet\.)?(basic_module\.|mean$|std$)", name) for name in flat):
        raise CheckpointError(
            f"{path} is a SPyNet, not a whole network; it can be the `init` of the flow stage of training"
        )
    if "fusion.weight" not in flat:
        raise CheckpointError(
            f"{path} is not a BasicVSR checkpoint of BasicSR or mmagic: it has no tensor fusion.weight"
        )
    names = {}
    for name, tensor in flat.items():
        if _IGNORED.match(name):
            continue
        name = re.sub(r"^(backward|forward)_resblocks\.", r"\1_trunk.", name)
        name = re.sub(r"^upsample(\d)\.upsample_conv\.", r"upconv\1.", name)
        names[_spynet_name(name)] = tensor
    return names, family


_RECONSTRUCTION = {"upconv1": "up1", "upconv2": "up2", "conv_hr": "hr", "conv_last": "last", "fusion": "fusion"}


def _to_native(name: str) -> str:
    """Our name of a tensor from BasicSR's. Unknown names are kept, so that the later check can report them."""
    if match := re.fullmatch(r"spynet\.basic_module\.(\d+)\.basic_module\.(\d+)\.(\w+)", name):
        return f"flow.levels.{match[1]}.{match[2]}.{match[3]}"
    if match := re.fullmatch(r"(\w+_trunk)\.main\.0\.(\w+)", name):
        return f"{match[1]}.input.{match[2]}"
    if match := re.fullmatch(r"(\w+_trunk)\.main\.2\.(\d+)\.(conv[12])\.(\w+)", name):
        return f"{match[1]}.blocks.{match[2]}.{match[3]}.{match[4]}"
    part, _, rest = name.partition(".")
    return f"reconstruction.{_RECONSTRUCTION[part]}.{rest}" if part in _RECONSTRUCTION else name


def _spynet_name(name: str) -> str:
    """BasicSR's name of a SPyNet tensor: mmagic counts the convolutions of a level only, BasicSR also the ReLUs between."""
    match = re.fullmatch(r"(spynet\.basic_module\.\d+\.basic_module\.)(\d+)\.conv\.(\w+)", name)
    return f"{match[1]}{2 * int(match[2])}.{match[3]}" if match else name


def _is_buffer(name: str, tensor: Tensor, path: Path) -> bool:
    """Whether this is SPyNet's mean or standard deviation. Raises CheckpointError unless they are ImageNet's."""
    known = {"spynet.mean": IMAGENET_MEAN, "spynet.std": IMAGENET_STD}
    if name not in known:
        return False
    if not torch.allclose(tensor.float().flatten(), torch.tensor(known[name]), atol=1e-5):
        raise CheckpointError(f"{path} has a {name} that is not ImageNet's; this package has no such network")
    return True


def _infer(weights: dict[str, Tensor], path: Path) -> VSRConfig:
    """The configuration of the network, from the shapes of its tensors."""
    channels = weights["reconstruction.fusion.weight"].shape[0]
    blocks = []
    for trunk in ("backward_trunk", "forward_trunk"):
        indices = [int(m[1]) for name in weights if (m := re.match(rf"{trunk}\.blocks\.(\d+)\.", name))]
        blocks.append(1 + max(indices, default=-1))
    if blocks[0] != blocks[1] or blocks[0] < 1:
        raise CheckpointError(
            f"{path} has {blocks[0]} backward and {blocks[1]} forward blocks; the numbers must be equal"
        )
    return VSRConfig(channels=channels, blocks=blocks[0], flow="spynet", reconstruction="basicvsr")


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; check the path")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read without running code that is in it, or is damaged; if you trust it, load it elsewhere "
            "and save only its weights: torch.save(model.state_dict(), file)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({' '.join(str(error).split())[:120]})"
        ) from error


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The dictionary of tensors in what was loaded, and the key under which it was ("" at the top)."""
    wrapper = ""
    if isinstance(content, dict):
        for key in _WRAPPERS:
            if isinstance(content.get(key), dict):
                content, wrapper = content[key], key
                break
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} holds no dictionary of tensors under {', '.join(_WRAPPERS)} or at its top")
    return content, wrapper
