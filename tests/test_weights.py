"""Published weights: words to files, files to tensors, tensors into nets. Nothing is asked of a network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from repro import tables
from repro.architectures import LIBRARIES, make
from repro.claims import Claims
from repro.errors import JobError, ReproError
from repro.schema import Build
from repro.weights import Published, find, fit_into, load

SMALL = "vgg:A+width=1/16+input=32+classes=10+pools=3"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The caches of torch and of Hugging Face in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))


def net(text: str, on: str = "cpu") -> nn.Module:
    with torch.device(on):
        return make(Build.parse(text)).eval()


def shapes(text: str) -> dict[str, Tensor]:
    """A state dict of the true shapes whose file takes no room: each tensor is one number, spread."""
    return {k: torch.zeros(()).expand(v.shape) for k, v in net(text, "meta").state_dict().items()}


def publish(weight: models.WeightsEnum, state: dict[str, Tensor], folder: Path, monkeypatch) -> Path:
    """Write a state dict as torchvision's file of a weight: its name ends in the first digits of its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new.pth")
    digits = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    path = (folder / "new.pth").rename(folder / f"net-{digits}.pth")
    monkeypatch.setattr(weight.value, "url", path.as_uri())
    return path


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("torchvision:vgg16.DEFAULT", "expected NET.WEIGHT, of vgg16: IMAGENET1K_V1, IMAGENET1K_FEATURES"),
        ("torchvision:vgg16", "expected NET.WEIGHT, of vgg16: IMAGENET1K_V1"),
        ("torchvision:vgg17.IMAGENET1K_V1", "expected NET.WEIGHT, of vgg17: none"),
        ("torchvision:fasterrcnn_resnet50_fpn.COCO_V1", "of fasterrcnn_resnet50_fpn: none"),
        ("timm:vgg16", "expected NET.TAG, of vgg16: vgg16.tv_in1k"),
        ("timm:vgg16.DEFAULT", "expected NET.TAG, of vgg16: vgg16.tv_in1k"),
        ("vgg16.pth", "weights 'vgg16.pth': no such file; expected a path, torchvision:NET.WEIGHT or timm:NET.TAG"),
    ],
)
def test_a_word_that_is_not_one_exact_weight_is_refused_with_the_names_that_exist(tmp_path, word, message):
    """DEFAULT, a net without a weight, an unknown net, and a file that is not there."""
    with pytest.raises(ReproError) as error:
        find(word, "vgg:D", tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("word", "url", "file"),
    [
        ("torchvision:vgg16.IMAGENET1K_V1", "https://download.pytorch.org/models/vgg16-397923af.pth", ""),
        ("timm:legacy_senet154.in1k", "https://github.com/rwightman/pytorch-image-models/", "senet154-e9eb9fe6.pth"),
        ("timm:vgg16.tv_in1k", "https://huggingface.co/timm/vgg16.tv_in1k/", "vgg16.tv_in1k.safetensors"),
    ],
)
def test_weights_that_are_not_here_are_named_with_what_to_get_and_where_to_put_it(tmp_path, word, url, file):
    """One line with the URL and the exact path at which the file will be found."""
    with pytest.raises(ReproError) as error:
        find(word, "vgg:D", tmp_path / "weights")
    text = str(error.value)
    place = f"{tmp_path / 'weights'}/"
    assert f"are not here: download {url}" in text
    assert f" and put it at {place}" in text
    assert text.endswith(file or "vgg16-397923af.pth")
    assert "\n" not in text


def test_every_weight_that_a_table_names_exists_and_is_of_the_row_s_own_net(tmp_path):
    """Each is a word that its library knows; where the row has a build, the two have as many parameters."""
    words: dict[str, set[str]] = {}
    for table in map(Claims("full").table, tables.find([])):
        for row in table.rows.values():
            for cell in ({}, *row["values"].values()):
                own = {**row, **cell}
                for library in LIBRARIES & own.get("weights", {}).keys():
                    builds = words.setdefault(f"{library}:{own['weights'][library]}", set())
                    if "biases" not in own["weights"].get("note", ""):
                        builds.update(own.get("build", []))
    assert len(words) > 40

    def parameters(text: str) -> int:
        return sum(p.numel() for name, p in net(text, "meta").named_parameters() if "aux" not in name.lower())

    for word, builds in words.items():
        with pytest.raises(ReproError, match="are not here: download https://"):
            find(word, "", tmp_path)
        for build in builds:
            assert parameters(word.partition(".")[0]) == parameters(build), (word, build)


def test_weights_of_torchvision_are_found_in_a_folder_or_its_cache_and_seen_as_it_sees_them(tmp_path, monkeypatch):
    """Full SHA-256, the library's build, and mean and scale that give what its own transforms give."""
    weight = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    path = publish(weight, shapes("torchvision:squeezenet1_1"), tmp_path / "weights", monkeypatch)
    word = "torchvision:squeezenet1_1.IMAGENET1K_V1"

    found = find(word, "x:y", tmp_path / "weights")

    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.origin == f"{word}, sha256 {found.sha256}"
    assert (found.build, found.differs) == ("torchvision:squeezenet1_1", "")
    assert found.preprocessing == {"Q": 256, "crop": 224, "resize": "bilinear antialias"}
    seen = weight.transforms()(Image.new("RGB", (300, 280), (10, 200, 90)))[:, 0, 0].numpy()
    np.testing.assert_allclose((np.array([10, 200, 90]) - found.mean) * found.scale, seen, rtol=1e-5)

    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path.rename(cache / path.name)
    assert find(word, "x:y", tmp_path / "weights").path == cache / path.name


def test_weights_of_timm_are_found_in_a_folder_or_the_hub_s_cache_and_seen_as_it_sees_them(tmp_path):
    """As for torchvision; the hub's cache is looked at as the hub writes it."""
    name = "test_resnet.r160_in1k"
    torch.manual_seed(0)
    theirs = timm.create_model(name.partition(".")[0])
    snapshot = tmp_path / "hf" / f"models--timm--{name}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    save_file(theirs.state_dict(), snapshot / "model.safetensors")

    found = find(f"timm:{name}", "x:y", tmp_path / "weights")

    assert found.path == snapshot / "model.safetensors"
    assert (found.build, found.preprocessing["crop"]) == ("timm:test_resnet", 160)
    config = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
    seen = timm.data.create_transform(**config)(Image.new("RGB", (300, 280), (10, 200, 90)))[:, 0, 0].numpy()
    np.testing.assert_allclose((np.array([10, 200, 90]) - found.mean) * found.scale, seen, rtol=1e-5)
    ours = net(found.build)
    assert fit_into(ours, load(found.path)) == ""
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs.eval()(x))

    (tmp_path / "weights").mkdir()
    (snapshot / "model.safetensors").rename(tmp_path / "weights" / f"{name}.safetensors")
    assert find(f"timm:{name}", "x:y", tmp_path / "weights").path == tmp_path / "weights" / f"{name}.safetensors"


def test_a_file_whose_checksum_is_not_that_of_its_name_is_refused(tmp_path):
    """torchvision's names end in the first digits of the SHA-256."""
    torch.save({}, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(ReproError, match=r"its SHA-256 begins .* not as its name says; download it again"):
        find("torchvision:vgg16.IMAGENET1K_V1", "vgg:D", tmp_path)


def test_weights_are_fetched_only_when_asked_and_a_failure_says_what_to_do(tmp_path, monkeypatch):
    """The download lands in the folder; without a network the error is still one line with URL and place."""
    weight, word = models.SqueezeNet1_1_Weights.IMAGENET1K_V1, "torchvision:squeezenet1_1.IMAGENET1K_V1"
    path = publish(weight, shapes("torchvision:squeezenet1_1"), tmp_path / "server", monkeypatch)
    with pytest.raises(ReproError, match="are not here: download"):
        find(word, "x:y", tmp_path / "weights")

    assert find(word, "x:y", tmp_path / "weights", fetch=True).path == tmp_path / "weights" / path.name

    monkeypatch.setattr(weight.value, "url", (tmp_path / "gone" / "net-00000000.pth").as_uri())
    with pytest.raises(ReproError) as error:
        find(word, "x:y", tmp_path / "weights", fetch=True)
    assert "are not here: download file:///" in str(error.value)
    assert str(error.value).endswith(f"and put it at {tmp_path / 'weights' / 'net-00000000.pth'}")


def test_what_a_library_sets_for_its_weights_is_set_in_the_build(tmp_path, monkeypatch):
    """Inception-v3 scales its input again inside, so that the usual mean and std become those it was trained with."""
    folder = tmp_path / "weights"
    publish(models.Inception_V3_Weights.IMAGENET1K_V1, shapes("torchvision:inception_v3"), folder, monkeypatch)
    found = find("torchvision:inception_v3.IMAGENET1K_V1", "x:y", folder)
    assert (found.build, net(found.build, "meta").transform_input) == ("torchvision:inception_v3+transform_input=1", 1)


def test_a_local_file_is_seen_as_it_says_or_as_is_usual_and_that_is_told(tmp_path):
    """Mean and scale from the metadata that a training here writes; else ImageNet's usual mean and std."""
    state = net(SMALL).state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors", {"format": "pt"})
    said = {"mean": json.dumps([100.0, 110.0, 120.0]), "scale": json.dumps(0.0157)}
    save_file(state, tmp_path / "b.safetensors", said)
    save_file(state, tmp_path / "c.safetensors", {**said, "scale": json.dumps([0.01, 0.02, 0.03])})
    save_file(state, tmp_path / "another.safetensors", {"mean": "of five runs", "scale": "1"})

    files = {p.name: find(str(p), SMALL, tmp_path) for p in sorted(tmp_path.glob("*.*"))}

    assert all(isinstance(f, Published) and f.build == SMALL for f in files.values())
    for usual in (files["a.pth"], files["a.safetensors"], files["another.safetensors"]):
        np.testing.assert_allclose(usual.mean, [123.675, 116.28, 103.53])
        np.testing.assert_allclose(usual.scale, 1 / np.array([58.395, 57.12, 57.375]))
        assert usual.differs == "with ImageNet's usual mean and std, for the file states none"
        assert usual.origin == f"{usual.path.name}, sha256 {usual.sha256}"
    np.testing.assert_allclose(files["b.safetensors"].mean, [100, 110, 120])
    np.testing.assert_allclose(files["b.safetensors"].scale, [0.0157] * 3)
    np.testing.assert_allclose(files["c.safetensors"].scale, [0.01, 0.02, 0.03])
    assert files["b.safetensors"].differs == files["c.safetensors"].differs == ""


def test_a_file_that_changes_has_another_sha256(tmp_path):
    """The checksum is kept by size and time of change alone."""
    path = tmp_path / "a.pth"
    first, second = net(SMALL).state_dict(), net(SMALL).state_dict()
    torch.save(first, path)
    one = find(str(path), SMALL, tmp_path).sha256
    torch.save(second, path)
    assert find(str(path), SMALL, tmp_path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != one


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "lr": 0.1}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_are_found_where_trainings_put_them(tmp_path, wrap, prefix):
    """Bare, under state_dict or model, and with the prefix of data-parallel training; in the old format too."""
    state = net(SMALL).state_dict()
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        named = {f"{prefix}{k}": v for k, v in state.items()}
        torch.save(wrap(named), path, _use_new_zipfile_serialization=zipped)
        read = load(path)
        assert list(read) == list(state)
        assert all(torch.equal(read[k], v) for k, v in state.items())


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_holds_more_than_tensors_is_not_unpickled(tmp_path):
    """No code of the file's runs, be it by `load` or by `find`."""
    torch.save({"weight": torch.zeros(1), "more": Evil(tmp_path / "harm")}, tmp_path / "evil.pth")

    with pytest.raises(JobError, match="is not read as weights: more than tensors in it; save the state dict alone"):
        load(tmp_path / "evil.pth")
    with pytest.raises(ReproError, match="more than tensors in it"):
        find(str(tmp_path / "evil.pth"), SMALL, tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "text.pth", "text.safetensors"])
def test_a_damaged_file_is_told_by_its_path(tmp_path, name):
    """Half a file, and a file of another kind."""
    path = tmp_path / name
    state = net(SMALL).state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if "cut" in name else b"no weights at all")
    with pytest.raises(JobError) as error:
        load(path)
    assert str(path) in error.value.reason
    assert error.value.final


@pytest.mark.parametrize("found", [{"state_dict": {"epoch": 3}}, {"epoch": 3}, {}, [torch.zeros(1)]])
def test_a_file_without_tensors_by_name_says_where_they_were_looked_for(tmp_path, found):
    """Numbers alone, nothing, or a list."""
    torch.save(found, tmp_path / "a.pth")
    with pytest.raises(JobError, match="holds no tensors by name, nor under state_dict or model"):
        load(tmp_path / "a.pth")


def test_weights_that_do_not_fit_name_the_keys_and_shapes_and_change_nothing():
    """The first few that are missing, unexpected, or of another shape, with how many there are."""
    ours = net("torchvision:shufflenet_v2_x0_5")
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    for key in ("fc.weight", "fc.bias"):
        state[f"head.{key}"] = state.pop(key)
    state["conv1.0.weight"] = torch.zeros(3, 3, 7, 7)

    with pytest.raises(JobError) as error:
        fit_into(ours, state)

    shape = tuple(before["conv1.0.weight"].shape)
    assert error.value.final
    assert "the weights do not fit ShuffleNetV2: 2 missing (fc.weight, fc.bias); " in error.value.reason
    assert "; 2 unexpected (head.fc.weight, head.fc.bias); " in error.value.reason
    assert error.value.reason.endswith(f"1 of another shape (conv1.0.weight (3, 3, 7, 7) for {shape})")
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    with pytest.raises(JobError, match=r" missing \((\S+, ){3}\.\.\.\); "):
        fit_into(net("timm:vgg11", "meta"), net("torchvision:resnet18", "meta").state_dict())


def test_a_file_that_does_not_fit_is_found_before_anything_runs(tmp_path):
    """`find` looks at names and shapes."""
    torch.save(net(SMALL).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ReproError, match=r"the weights do not fit VGG: .* of another shape"):
        find(str(tmp_path / "a.pth"), SMALL.replace("1/16", "1/8"), tmp_path)


def test_torchvision_s_names_go_into_a_net_of_ours_by_order_and_give_the_same_scores(tmp_path):
    """The same function, to the bit, and the file's SHA-256 stands beside the words that it was mapped."""
    torch.manual_seed(0)
    theirs = net("torchvision:resnet18+num_classes=10")
    for key, tensor in theirs.state_dict().items():
        if "running" in key:
            tensor.uniform_(0.5, 2)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")

    found = find(str(tmp_path / "a.pth"), "resnet:18+classes=10", tmp_path)
    ours = net(found.build)
    said = fit_into(ours, load(found.path))

    assert said == "mapped by the order of tensors: what has no weights (strides, pooling, LRN) is this net's own"
    assert found.differs.startswith(f"{said}; with ImageNet's usual mean")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("theirs", "ours"), [("11", "A"), ("13", "B"), ("16", "D"), ("19", "E")])
def test_torchvision_s_vggs_fit_the_paper_s_and_no_other(theirs, ours):
    """Each of four configurations goes into its own net alone."""
    state = net(f"torchvision:vgg{theirs}", "meta").state_dict()
    for name in "ABDE":
        if name == ours:
            assert "order" in fit_into(net(f"vgg:{name}", "meta"), state)
        else:
            with pytest.raises(JobError, match="do not fit"):
                fit_into(net(f"vgg:{name}", "meta"), state)


@pytest.mark.parametrize("change", ["swap", "rename", "reshape", "drop", "theirs"])
def test_nothing_is_mapped_by_order_unless_every_tensor_agrees(change):
    """A swapped pair of one shape, another kind of tensor, another shape, one too few, a net that is not ours."""
    state = net("torchvision:resnet18", "meta").state_dict()
    keys, target = list(state), net("resnet:18", "meta")
    place = keys.index("bn1.weight")
    if change == "swap":
        keys[place], keys[place + 2] = keys[place + 2], keys[place]  # with the running mean, of the same shape
    state = {k: state[k] for k in keys if change != "drop" or k != "fc.bias"}
    if change == "rename":
        state = {k.replace("fc.weight", "fc.kernel"): v for k, v in state.items()}
    elif change == "reshape":
        state["fc.weight"] = state["fc.weight"].T
    elif change == "theirs":
        state = target.state_dict()
        target = net("torchvision:resnet18", "meta")
    with pytest.raises(JobError, match="do not fit"):
        fit_into(target, state)


def test_torchvision_s_densenet_files_have_names_of_long_ago(tmp_path):
    """`norm.1` is `norm1` today; counters of batches, which such files lack, are not asked for."""
    state = shapes("torchvision:densenet121")
    old = {
        k.replace("norm1", "norm.1").replace("conv1", "conv.1").replace("norm2", "norm.2").replace("conv2", "conv.2")
        if "denselayer" in k
        else k: v
        for k, v in state.items()
        if "num_batches" not in k
    }
    torch.save(old, tmp_path / "a.pth")
    assert fit_into(net("torchvision:densenet121", "meta"), load(tmp_path / "a.pth")) == ""
