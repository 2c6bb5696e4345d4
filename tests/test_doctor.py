"""What the engine does on which machine, and that `repro doctor` says it."""

from __future__ import annotations

import pytest
import torch

from benchmarks import timing
from repro.doctor import examine
from repro.evaluate.machines import MACHINES, machine, processor
from repro.store import Store


@pytest.mark.parametrize(
    ("flags", "name"),
    [("avx512f avx512_bf16 amx_bf16", "amx"), ("avx512f avx512_bf16", "bf16"), ("avx2", "other"), ("", "other")],
)
def test_the_class_of_a_processor_is_found(flags, name):
    """From its flags as Linux lists them; the benchmarks name it the same."""
    assert processor(f"processor : 0\nflags\t\t: fpu {flags}\n") == name
    assert MACHINES[timing.processor()] is machine("cpu")


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "older"), ((8, 0), "ampere"), ((9, 0), "ampere")])
def test_the_class_of_a_gpu_is_its_compute_capability(monkeypatch, capability, name):
    """bf16 and TF32 are offered from 8.0 on."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = machine.__wrapped__("cuda:1")

    assert found is MACHINES[name]
    assert ("tf32" in found.offers) == (capability >= (8, 0))


def test_small_views_go_as_fit_a_cache_and_large_ones_as_fit_memory():
    """On a CPU 128 views of 32 x 32, 16 of 224 x 224, and two of 512 x 683."""
    pixels = MACHINES["bf16"].pixels

    assert [pixels(*size) // (size[0] * size[1]) for size in ((32, 32), (224, 224), (512, 683))] == [128, 16, 2]


def test_doctor_says_what_the_engine_would_use(tmp_path):
    """The class of machine, the choices with their reasons, and what may be asked for."""
    (note,) = [note for _, what, note in examine(tmp_path) if what == "evaluation"]

    assert note.startswith(machine("cuda" if torch.cuda.is_available() else "cpu").name)
    assert "channels last" in note
    assert "-o evaluate.dtype= offers " in note


def test_doctor_counts_what_is_whole_and_sets_aside_what_is_not(tmp_path):
    """A record whose file changed is named with what to do, and is none of the whole ones."""
    store = Store(tmp_path)
    for digest in ("ab12", "cd34"):
        (made := store.partial(digest) / "made").write_text("weights")
        store.commit("train", digest, f"train {digest}", {}, {}, {"bin": made}, {}, 1.0)
    (tmp_path / "records/train/cd/cd34.bin").write_text("other")
    found = {what: (ok, note) for ok, what, note in examine(tmp_path)}

    assert found["train cd34"] == (False, "bin damaged; set aside, the next run makes it again")
    assert found["records"] == (True, "1 whole, 1 set aside as .damaged")
    assert found["jobs begun and not ended"] == (True, "2; `repro run` goes on with them")
