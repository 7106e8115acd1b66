from __future__ import annotations

import getpass
import json
import os
import platform

import pytest
import torch

from distreal_dse.cost import device_fingerprint, device_text, fingerprint_hash


def test_the_fingerprint_says_what_latency_depends_on() -> None:
    found = device_fingerprint("cpu", 2)
    assert json.loads(json.dumps(found)) == found
    assert found["kind"] == "cpu" and found["threads"] == 2
    assert found["torch"] == torch.__version__
    assert found["machine"] == platform.machine()
    assert found["cores"] == os.cpu_count()
    assert found["cpu"]
    assert found == device_fingerprint("cpu", 2)


def test_the_fingerprint_names_no_host_user_or_path() -> None:
    found = device_fingerprint("cpu", 1)
    assert platform.node() not in found.values()
    assert getpass.getuser() not in found.values()
    assert not any(str(value).startswith(os.sep) for value in found.values())


def test_another_device_has_another_hash() -> None:
    one = device_fingerprint("cpu", 1)
    assert fingerprint_hash(one) == fingerprint_hash(dict(reversed(one.items())))
    changed = [{**one, key: "other"} for key in one]
    assert len({fingerprint_hash(device) for device in [one, *changed]}) == len(one) + 1


def test_the_text_is_one_line_for_any_device() -> None:
    own = device_fingerprint("cpu", 1)
    assert str(own["cpu"]) in device_text(own)
    assert "1 thread," in device_text(own)
    assert fingerprint_hash(own) in device_text(own)
    assert "without a description" in device_text({})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_named() -> None:
    assert device_fingerprint("cuda", 1)["gpu"] == torch.cuda.get_device_name()
