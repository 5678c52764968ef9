"""The trials of `make soak`, small: they hold at this size in the tests, and at full size in docs/reliability.md."""

import random

import pytest
import soak
from comfy_server import ComfyServer

COUNT, SECONDS = 12, 1200


@pytest.mark.slow
def test_killed_servers_and_clients_lose_and_double_nothing(comfyui, comfy, tmp_path):
    inputs, rng = soak.make_inputs(tmp_path / "in", COUNT), random.Random(1)
    with ComfyServer(comfyui=comfyui) as other:
        row, truth = soak.unbroken(inputs, tmp_path / "unbroken", [comfy, other], COUNT, SECONDS)
        assert row["fine"], row
        row = soak.kill_client(inputs, tmp_path / "client", [comfy, other], COUNT, SECONDS, truth, rng, kills=2)
        assert row["fine"], row
        # `comfy` belongs to all tests, so the one that dies is ours
        row = soak.kill_server(inputs, tmp_path / "server", [other], COUNT, SECONDS, truth, rng)
        assert row["fine"], row


def test_the_judge_sees_what_is_wrong(tmp_path):
    names = [f"{number:04}-01.png" for number in range(12) if number != 10]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    truth, end = soak.files(tmp_path), {"results": 11, "set aside": 1}
    assert soak.judge(tmp_path, end, 12, truth)["fine"]
    assert soak.judge(tmp_path, end, 12, {**truth, names[0]: b"other"})["changed"] == 1
    assert not soak.judge(tmp_path, {"results": 11, "set aside": 0}, 12, truth)["fine"]
    (tmp_path / "0003-01-2.png").write_bytes(b"twice")
    assert soak.judge(tmp_path, end, 12, truth)["doubled"] == 1
    (tmp_path / names[3]).unlink()
    row = soak.judge(tmp_path, end, 12, truth)
    assert (row["lost"], row["fine"]) == (1, False)
