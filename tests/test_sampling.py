"""Noise levels, guidance, noise and the Euler loop, against diffusers and against mathematics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnialpha.errors import OmniAlphaError
from omnialpha.sampling import Schedule, denoise, guide, initial_noise, sigmas

CONFIG = json.loads((Path(__file__).parent / "golden/dit/scheduler/scheduler_config.json").read_text())


def stock_sigmas(steps, mu, config=CONFIG):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas


def stock_mu(tokens, config=CONFIG):
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift

    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return calculate_shift(tokens, *(config[key] for key in keys))


@pytest.mark.parametrize("tokens", [16, 256, 4096, 8192, 20000])
@pytest.mark.parametrize("steps", [2, 3, 8, 50])
def test_sigmas_equal_diffusers(steps, tokens):
    schedule = Schedule.from_config(CONFIG)
    assert schedule == Schedule()
    assert schedule.mu(tokens) == pytest.approx(stock_mu(tokens), abs=1e-12)
    found = sigmas(steps, tokens, schedule)
    assert found.dtype == torch.float32 and found.shape == (steps + 1,)
    torch.testing.assert_close(found, stock_sigmas(steps, stock_mu(tokens)), atol=2e-7, rtol=0)
    assert found[0] == 1 and found[-1] == 0
    assert found[-2].item() == pytest.approx(0.02, abs=1e-6)


def test_one_step_goes_all_the_way():
    """diffusers divides 0 by 0 here."""
    assert sigmas(1, 4096).tolist() == [1, 0]


@given(st.integers(1, 200), st.integers(1, 40000))
def test_sigmas_fall(steps, tokens):
    levels = sigmas(steps, tokens)
    assert torch.isfinite(levels).all() and (levels.diff() < 0).all()


@pytest.mark.parametrize("steps", [0, -3, 2.5])
def test_no_steps_is_an_error(steps):
    with pytest.raises(OmniAlphaError, match=f"at least 1 step, got {steps}"):
        sigmas(steps, 256)


def test_static_shift_equals_diffusers():
    """Distilled checkpoints come with one shift for all sizes and no terminal."""
    config = CONFIG | {"use_dynamic_shifting": False, "shift": 3.0, "shift_terminal": None}
    schedule = Schedule.from_config(config)
    assert schedule.terminal is None
    for tokens in (256, 9000):
        torch.testing.assert_close(sigmas(4, tokens, schedule), stock_sigmas(4, None, config), atol=2e-7, rtol=0)


@pytest.mark.parametrize("shift", [1e-6, 0.5, 1.0])
def test_a_static_shift_may_push_the_other_way(shift):
    schedule = Schedule.from_config({"use_dynamic_shifting": False, "shift": shift})
    assert schedule.mu(1) == schedule.mu(10_000) == pytest.approx(math.log(shift))


def test_other_shifts_equal_diffusers():
    config = CONFIG | {"base_shift": 0.3, "max_shift": 1.2, "shift_terminal": 0.1, "base_image_seq_len": 64}
    found = sigmas(7, 1000, Schedule.from_config(config))
    torch.testing.assert_close(found, stock_sigmas(7, stock_mu(1000, config), config), atol=2e-7, rtol=0)


def test_absent_keys_are_qwen_images():
    assert Schedule.from_config({}) == Schedule()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"base_shift": "0.5"}, "base_shift = '0.5'"),
        ({"max_shift": None}, "max_shift = None"),
        ({"max_shift": True}, "max_shift = True"),
        ({"shift_terminal": [0.02]}, "shift_terminal"),
        ({"shift_terminal": 1.0}, "shift_terminal"),
        ({"base_shift": math.nan}, "base_shift = nan"),
        ({"base_image_seq_len": 8192}, "8192"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"time_shift_type": "linear"}, "linear"),
        ({"use_dynamic_shifting": False, "shift": 0}, "shift = 0"),
    ],
)
def test_bad_configs_are_named(change, words):
    with pytest.raises(OmniAlphaError, match=words):
        Schedule.from_config(CONFIG | change)


def test_guidance_equals_diffusers_lines():
    torch.manual_seed(0)
    cond, uncond = torch.randn(2, 1, 30, 64)
    combined = uncond + 4.0 * (cond - uncond)
    expected = combined * (torch.norm(cond, dim=-1, keepdim=True) / torch.norm(combined, dim=-1, keepdim=True))
    assert torch.equal(guide(cond, uncond, 4.0), expected)


@given(st.floats(1.001, 50), st.integers(0, 2**32))
def test_guidance_keeps_every_tokens_length(scale, seed):
    cond, uncond = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(guide(cond, uncond, scale).norm(dim=-1), cond.norm(dim=-1))


@pytest.mark.parametrize("scale", [1.0, 0.0, -2.0])
def test_no_guidance_does_not_look_at_the_other(scale):
    cond = torch.randn(1, 3, 64)
    assert guide(cond, None, scale) is cond


def test_guidance_survives_zeros():
    zero, some = torch.zeros(1, 2, 64), torch.randn(1, 2, 64)
    for cond, uncond in [(zero, zero), (zero, some), (some, some * 2)]:  # the last combination vanishes at scale 2
        assert torch.isfinite(guide(cond, uncond, 2.0)).all()


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_guidance_must_be_a_number(scale):
    with pytest.raises(OmniAlphaError, match="finite"):
        guide(torch.ones(1, 64), torch.ones(1, 64), scale)


def test_noise_is_the_seeds():
    expected = torch.randn(1, 16, 2, 8, 12, generator=torch.manual_seed(7))
    state = torch.random.get_rng_state()
    found = initial_noise(7, 2, 8, 12)
    assert torch.equal(found, expected) and found.dtype == torch.float32
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator must stay as it is"
    assert not torch.equal(found, initial_noise(8, 2, 8, 12))
    assert initial_noise(2**64 - 1, 1, 2, 2).shape == (1, 16, 1, 2, 2)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5])
def test_seeds_out_of_range(seed):
    with pytest.raises(OmniAlphaError, match=str(seed)):
        initial_noise(seed, 1, 2, 2)


@given(st.integers(1, 30))
def test_euler_is_exact_on_straight_paths(steps):
    """With the true velocity noise - clean the path is a line, and any number of steps ends at the clean picture."""
    clean, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    seen = []
    result = denoise(lambda x, sigma: noise - clean, noise, sigmas(steps, 500), lambda *args: seen.append(args))
    torch.testing.assert_close(result, clean, atol=1e-5, rtol=0)
    assert [(i, total) for i, total, _ in seen] == [(i, steps) for i in range(steps)]
    for _, _, estimate in seen:
        torch.testing.assert_close(estimate, clean, atol=1e-5, rtol=0)


def test_euler_equals_diffusers_steps():
    from diffusers import FlowMatchEulerDiscreteScheduler

    def velocity(x, sigma):
        return torch.sin(x * 3) + sigma

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(CONFIG)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 6, 6), mu=stock_mu(700))
    x = noise = torch.randn(1, 16, 1, 4, 4)
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, t / 1000), t, x, return_dict=False)[0]
    torch.testing.assert_close(denoise(velocity, noise, sigmas(6, 700)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_prediction_is_named_with_its_step(value):
    calls = []

    def velocity(x, sigma):
        calls.append(sigma)
        return torch.full_like(x, value if len(calls) == 3 else 0.0)

    with pytest.raises(OmniAlphaError, match="step 3 of 5"):
        denoise(velocity, torch.zeros(2), sigmas(5, 256))
    assert len(calls) == 3
