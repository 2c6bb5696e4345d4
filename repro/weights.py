"""Published weights: one exact word to a checked file, and that file's tensors into a net."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from .architectures import LIBRARIES, make
from .errors import JobError, ReproError
from .provenance import file_digest
from .schema import Build

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Published:
    """Weights of `build`, trained to see (pixel - mean) * scale, (3,) each, of RGB pixels of 0 to 255."""

    origin: str
    build: str
    path: Path
    sha256: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    differs: str  # what was done beyond taking them as they are stated
    preprocessing: Mapping[str, Any]  # the makers' own: Q, crop, resize


def find(word: str, build: Build | str, folder: Path, fetch: bool = False) -> Published:
    """`torchvision:vgg16.IMAGENET1K_V1` or `timm:resnet50.a1_in1k` with the library's own net; a path with `build`.

    A library's file is looked for in `folder` and in the caches of torch and Hugging Face, and downloaded with
    `fetch`. Raises ReproError for an inexact word, and for a file that is not here, not sound, or does not fit.
    """
    library, _, name = word.partition(":")
    net, path, digits, made = str(build), Path(word).expanduser(), "", {}
    if library in LIBRARIES:
        net, source, hub, means, deviations, made = (_torchvision if library == "torchvision" else _timm)(name)
        path = _file(name, source, hub, folder, fetch)
        digits = "".join(re.findall(r"-([0-9a-f]{8,})\.\w+$", source))  # the first of the SHA-256, in a file's name
        mean, scale = [255 * m for m in means], [1 / (255 * d) for d in deviations]
    elif not path.is_file():
        raise ReproError(f"weights {word!r}: no such file; expected a path, torchvision:NET.WEIGHT or timm:NET.TAG")
    try:
        sha256, differs = _checked(path, net, digits, path.stat().st_size, path.stat().st_mtime_ns)
    except JobError as error:
        raise ReproError(error.reason) from None
    if not made:
        mean, scale, note = _stated(path)
        differs = "; ".join(filter(None, (differs, note)))
    origin = f"{word if made else path.name}, sha256 {sha256}"
    return Published(origin, net, path, sha256, tuple(mean), tuple(scale), differs, made)


@cache
def _checked(path: Path, build: str, digits: str, size: int, changed: int) -> tuple[str, str]:
    """SHA-256 of a file, which begins as its name says, and what `fit_into` says of it, from shapes alone."""
    import torch

    if not (sha256 := file_digest(path)).startswith(digits):
        raise JobError(f"{path}: its SHA-256 begins {sha256[:8]}, not as its name says; download it again")
    with torch.device("meta"):
        net = make(Build.parse(build))
    return sha256, fit_into(net, load(path))


def _torchvision(name: str) -> tuple[Any, ...]:
    """Build, URL, repository at Hugging Face, mean, std, preprocessing."""
    from torchvision import models

    net, _, weight = name.partition(".")
    held = {w.name: w for w in models.get_model_weights(net)} if net in models.list_models(models) else {}
    if weight not in held:
        raise ReproError(f"weights torchvision:{name}: expected NET.WEIGHT, of {net}: {', '.join(held) or 'none'}")
    own = held[weight].transforms()
    made = {"Q": own.resize_size[0], "crop": own.crop_size[0], "resize": f"{own.interpolation.value} antialias"}
    extra = "+transform_input=1" if net in ("inception_v3", "googlenet") else ""  # as it sets when it loads them
    return f"torchvision:{net}{extra}", held[weight].url, "", own.mean, own.std, made


def _timm(name: str) -> tuple[Any, ...]:
    import timm

    net = name.partition(".")[0]
    if name not in (held := timm.list_models(f"{net}.*", pretrained=True)):
        raise ReproError(f"weights timm:{name}: expected NET.TAG, of {net}: {', '.join(held) or 'none'}")
    cfg = timm.models.get_pretrained_cfg(name)
    hub, crop = cfg.hf_hub_id or "", cfg.input_size[-1]
    url = f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else cfg.url
    made = {"Q": int(crop / cfg.crop_pct), "crop": crop, "resize": f"{cfg.interpolation} antialias"}
    return f"timm:{net}", url, hub, cfg.mean, cfg.std, made


def _file(name: str, url: str, hub: str, folder: Path, fetch: bool) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from torch.hub import download_url_to_file, get_dir

    file = f"{name}.safetensors" if hub else url.rpartition("/")[2]
    cached = try_to_load_from_cache(hub, "model.safetensors") if hub else None  # asks no network
    places = [place := (folder / file).resolve(), Path(get_dir(), "checkpoints", file), Path(str(cached))]
    if found := next((p for p in places if p.is_file()), None):
        return found
    with suppress(OSError):  # without a network the error says what to do
        if fetch:
            folder.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(place), progress=False)
            return place
    raise ReproError(f"weights {name} are not here: download {url} and put it at {place}")


def _stated(path: Path) -> tuple[list[float], list[float], str]:
    """Mean and scale of a local file: of its metadata, as trainings here write it, or ImageNet's, and what to say."""
    from safetensors import safe_open

    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file, suppress(ValueError, KeyError, TypeError):
            meta = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key in ("mean", "scale")}
            scale = meta["scale"] if isinstance(meta["scale"], list) else [meta["scale"]] * 3
            if all(len(v) == 3 and all(isinstance(x, int | float) for x in v) for v in (meta["mean"], scale)):
                return meta["mean"], scale, ""
    usual = [123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]
    return *usual, "with ImageNet's usual mean and std, for the file states none"


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, read as they are used. Raises JobError, final, where it holds no such."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, EOFError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        why = "more than tensors in it; save the state dict alone" if isinstance(error, UnpicklingError) else error
        raise JobError(f"{path} is not read as weights: {why}", final=True) from None
    while isinstance(found, Mapping) and not all(isinstance(v, torch.Tensor) for v in found.values()):
        found = found.get("state_dict", found.get("model"))
    if not isinstance(found, Mapping) or not found:
        raise JobError(f"{path} holds no tensors by name, nor under state_dict or model", final=True)
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # torchvision's DenseNets have names of long ago
    return {old.sub(r"\1\2", str(k).removeprefix("module.")): v for k, v in found.items()}


def fit_into(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Copy tensors into a net; returns in words what was done beyond equal names.

    Into a net of ours other names go by their order, if each has the shape and the last word of its name. Raises
    JobError, final, with the names that are missing, unexpected, or of another shape.
    """
    both, said = (net.state_dict(), state), ""
    own, given = ({k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")} for tensors in both)
    kinds = [[(k.split(".")[-1], v.shape) for k, v in tensors.items()] for tensors in (own, given)]
    if own.keys() != given.keys() and kinds[0] == kinds[1] and type(net).__module__.startswith(f"{__package__}."):
        given = dict(zip(own, given.values(), strict=True))
        said = "mapped by the order of tensors: what has no weights (strides, pooling, LRN) is this net's own"
    shapes = {k: (tuple(given[k].shape), tuple(v.shape)) for k, v in own.items() if k in given}
    wrong = {
        "missing": [k for k in own if k not in given],
        "unexpected": [k for k in given if k not in own],
        "of another shape": [f"{k} {has} for {needs}" for k, (has, needs) in shapes.items() if has != needs],
    }
    if some := [f"{len(v)} {what} ({', '.join(v[:3])}{', ...' * (len(v) > 3)})" for what, v in wrong.items() if v]:
        raise JobError(f"the weights do not fit {type(net).__name__}: {'; '.join(some)}", final=True)
    for name, tensor in own.items():
        tensor.copy_(given[name])
    return said
