"""What is found before a set goes through a net, what another dtype changes, and what a pass keeps in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_imagenet import make as make_imagenet
from made_imagenet import wnids
from test_evaluate import MEAN, SCALE, make, one_by_one, pictures
from torch import nn

from repro import data
from repro.data import Images
from repro.errors import JobError, ReproError
from repro.evaluate import engine
from repro.evaluate.engine import scores
from repro.evaluate.sanity import changed_share, check
from repro.schema import ViewSet

CLASSES, AT = 16, ViewSet("ten", 36, 32)
IMAGENET, HALF, UNIT = ([123.7, 116.3, 103.5], [1 / 58.4, 1 / 57.1, 1 / 57.4]), (127.5, 1 / 127.5), (0, 1 / 255)
COLOURS = np.random.default_rng(1).integers(30, 226, (CLASSES, 3))


def coloured(n: int = 320, classes: Sequence[str] = tuple("abcdefghijklmnop")) -> Images:
    """Noisy images whose class is their colour, `n` in all."""
    random, labels = np.random.default_rng(0), np.arange(n) % CLASSES
    pixels = COLOURS[labels][:, None, None] + random.normal(0, 20, (n, 40, 40, 3))
    return Images(pixels.clip(0, 255).astype(np.uint8), labels, name="coloured", classes=classes)


def nearest(mean: object, scale: object, norm: bool = True) -> nn.Module:
    """A net that was trained with this normalisation: it answers the class of the nearest colour.

    With `norm` a batch normalisation stands first, with the statistics of those inputs.
    """
    x = torch.tensor((COLOURS - np.broadcast_to(mean, 3)) * np.broadcast_to(scale, 3), dtype=torch.float32)
    first = nn.BatchNorm2d(3)
    first.running_mean, first.running_var = x.mean(0), x.var(0, unbiased=False)
    last, seen = nn.Linear(3, CLASSES), first.eval()(x[:, :, None, None])[:, :, 0, 0] if norm else x
    with torch.no_grad():
        last.weight.copy_(2 * seen)
        last.bias.copy_(-(seen**2).sum(1))
    layers = [first] if norm else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


@pytest.mark.parametrize("stated", [IMAGENET, HALF, UNIT], ids=["imagenet", "half", "unit"])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
def test_what_fits_passes(stated, norm):
    """Under each usual normalisation, and with the net left as it was."""
    net = nearest(*stated, norm)
    check(net, coloured(), AT, *stated, published=True)

    assert not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("trained", "stated", "text"),
    [
        (IMAGENET, HALF, r"0.\d deviations off and 0.2"),
        (HALF, IMAGENET, r"0.\d deviations off and 5"),
        (IMAGENET, UNIT, r"0.\d deviations off and 0.05"),
        (HALF, (0, 1 / 127.5), r"2.\d deviations off and 1"),
    ],
    ids=["narrow", "wide", "unit", "no mean"],
)
def test_a_wrong_normalisation_is_found(trained, stated, text):
    """The statistics that the first normalisation kept give it away, by the mean or by the variance."""
    with pytest.raises(JobError, match=f"first BatchNorm sees a mean {text}.*: are mean and scale those of these"):
        check(nearest(*trained), coloured(), AT, *stated, published=True)


def test_a_wrong_normalisation_shows_in_the_answers_where_nothing_was_kept():
    """Without batch normalisation all images have one class at a hundredth of the scale."""
    with pytest.raises(JobError, match=r"of 320 images are right, no more than by chance: are these the weights of"):
        check(nearest(*HALF, norm=False), coloured(), AT, 0, 1 / 25500, published=True)


@pytest.mark.parametrize(
    "order",
    [np.roll(range(CLASSES), 1), sorted(range(CLASSES), key=str), np.random.default_rng(2).permutation(CLASSES)],
    ids=["from 1", "numbers as words", "any"],
)
def test_labels_in_another_order_are_named(order):
    """Right answers under the wrong labels: told with what the net calls the first of them."""
    images = coloured()
    wrong = replace(images, labels=np.argsort(order)[images.labels])
    which = f"{wrong.classes[0]} as {wrong.classes[order[0]]}"
    with pytest.raises(JobError, match=f"by chance: the labels stand in another order .*{which}"):
        check(nearest(*HALF), wrong, AT, *HALF, published=True)


def test_weights_that_fit_nothing_are_told_as_such():
    """Random answers that no order makes right; asked of published weights only."""
    torch.manual_seed(0)
    net = nearest(*HALF, norm=False)
    net[-1] = nn.Linear(3, CLASSES)
    check(net, coloured(), AT, *HALF)
    check(net, coloured(), AT, *HALF, limit=8, published=True)  # too few to tell
    with pytest.raises(JobError, match=r"are these the weights of this net, and mean and scale theirs\?$"):
        check(net, coloured(), AT, *HALF, published=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": np.zeros(320, int)}, "all 320 images are of class a: expected a folder for each class"),
        ({"labels": np.arange(320) % 15}, "1 of 16 classes have no image, p the first"),
        ({"labels": np.arange(320) % 17}, "labels go from 0 to 16, and there are 16 classes"),
        ({"labels": np.arange(320) % 16 - 1}, "labels go from -1 to 14, and there are 16 classes"),
        ({"classes": tuple("abcdefghijklmnopq"), "labels": np.arange(320) % 17}, "has 16 outputs, and .* 17 classes"),
    ],
    ids=["flat", "missing", "high", "low", "outputs"],
)
def test_a_set_that_does_not_go_with_the_net_is_told(change, text):
    """Each in one sentence, before any image is scored but one."""
    with pytest.raises(JobError, match=text):
        check(nearest(*HALF), replace(coloured(), **change), AT, *HALF)


def test_a_part_of_imagenet_lacks_classes(tmp_path):
    """Twenty classes of the thousand: an error, but not where a part is asked for; labels are those of the wnids."""
    make_imagenet(tmp_path, val_per_class=1)
    (tmp_path / "repro.toml").write_text(f'[data]\nimagenet-1k = "{tmp_path}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        images = data.open_set("imagenet-1k-val", tmp_path / "cache")
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    check(net, images, AT, *HALF, limit=20)
    with pytest.raises(JobError, match=f"980 of 1000 classes have no image, {wnids()[0]} the first"):
        check(net, images, AT, *HALF)
    other = replace(images, classes=(*wnids()[1:], wnids()[0]))
    with pytest.raises(JobError, match=f"label 0 is {wnids()[1]} in the data set and {wnids()[0]} in ImageNet"):
        check(net, other, AT, *HALF, limit=20)


# Another dtype


def test_the_share_of_changed_decisions_is_counted():
    """By hand from the scores of both; the larger of two view sets; none where the answers are clear."""
    net, sets = make("vgg:A+width=1/8+input=32+classes=10+pools=3", torch.float32), [AT, ViewSet("dense", 40, 32)]
    images = pictures(40)
    exact, half = (scores(net, images, sets, MEAN, SCALE, dtype=d) for d in ("float32", "bfloat16"))
    expected = max(np.mean(exact[v].argmax(1) != half[v].argmax(1)) for v in sets)

    assert changed_share(net, iter(images), sets, MEAN, SCALE, dtype="bfloat16", limit=1) == expected
    assert changed_share(nearest(*HALF), coloured(), [AT], *HALF, dtype="bfloat16") == 0


def test_a_dtype_that_changes_decisions_is_refused():
    """Two classes that differ by a thousandth, which bf16 does not hold: the share and the way out are told."""
    net = nearest(*HALF, norm=False)
    with torch.no_grad():
        net[-1].weight[1:] = net[-1].weight[:1] + torch.randn(CLASSES - 1, 3, generator=torch.manual_seed(0)) * 1e-3
        net[-1].bias.fill_(0)
    with pytest.raises(JobError, match=r"bfloat16 changes the top-1 class of \d+ % of the first 32 images, more") as e:
        changed_share(net, coloured(), [AT], *HALF, dtype="bfloat16", most=32)
    assert e.value.final


def test_tf32_is_on_only_where_it_is_asked_for():
    """Both switches of torch, and both as before afterwards; not offered on a CPU."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = True
        for dtype in ("float32", "tf32"):
            with engine._settled(nn.Identity(), dtype):
                assert (matmul.allow_tf32, cudnn.allow_tf32) == ((dtype == "tf32",) * 2)
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, before[1])
    finally:
        matmul.allow_tf32 = before[0]
    with pytest.raises(ReproError, match=r"'tf32' does not go with a net in torch.float32; .* 'tf32' on a GPU"):
        scores(nearest(*HALF), coloured(2).images, [AT], *HALF, dtype="tf32")


# What a pass keeps


def test_a_sink_is_given_every_row_once():
    """With their places in the order of the images, batch by batch; nothing is returned."""
    net, sets = make("vgg:A+width=1/8+input=32+classes=10+pools=3"), [AT, ViewSet("dense", 40, 32)]
    images = [pictures(7, *shape)[i] for i, shape in enumerate([(72, 72), (50, 61), (72, 72), (50, 61), (61, 50)])]
    expected = scores(net, images, sets, MEAN, SCALE, dtype="float64", batch=2)
    found, calls = {v: np.full((len(images), 10), np.nan, np.float32) for v in sets}, []

    def sink(view_set: ViewSet, places: np.ndarray, rows: np.ndarray) -> None:
        assert np.isnan(found[view_set][places]).all()
        found[view_set][places] = rows
        calls.append(len(rows))

    assert scores(net, iter(images), sets, MEAN, SCALE, dtype="float64", batch=2, sink=sink) == {}
    assert max(calls) == 2
    for v in sets:
        assert np.array_equal(found[v], expected[v])


def test_each_channel_has_its_scale():
    """Three scales, as the standard deviations of ImageNet are three, beside the slow twin."""
    net, images, scale = make("vgg:A+width=1/8+input=32+classes=10+pools=3"), pictures(2), np.array([0.01, 0.02, 0.03])
    found = scores(net, images, [AT], MEAN, scale, dtype="float64")[AT]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_evaluate.SCALE", scale)
        expected = [one_by_one(net, image, AT) for image in images]

    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


PEAK = """
import resource
import numpy as np, torch
from torch import nn
from repro import protocols
from repro.evaluate.engine import scores
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 4, 7, stride=16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 100_000)).eval()
sets = [v for _, v in protocols.resolve(["grid"], [256, 384, 512], 224)]
assert sum(len(protocols.views(v, 375, 500)) for v in sets) == 150
def images(n):
    for i in range(n):
        yield np.random.default_rng(i).integers(0, 256, ((375, 500, 3), (500, 333, 3))[i % 2], dtype=np.uint8)
rows = []
for n in (10, 10, 100):  # the first warms up
    scores(net, images(n), sets, [120.0] * 3, [1 / 58] * 3, sink=lambda v, places, found: rows.append(len(found)))
    print(n, sum(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    rows.clear()
"""


def test_peak_memory_does_not_grow_with_the_images():
    """150 crops of images of real size, ten times as many: less than 5 % more, neither images nor rows are kept."""
    # Freed memory goes back at once, so that the peak is of what is held, and not of a heap with holes.
    env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, env=env)
    (_, few, before), (_, many, after) = [map(int, line.split()) for line in done.stdout.splitlines()[1:]]

    assert (few, many) == (30, 300)
    assert after / before < 1.05
