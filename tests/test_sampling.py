"""Noise levels, guidance, noise and the Euler loop, against diffusers and against mathematics."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import CONFIG, STEPS, TOKENS, scheduler, shift

from omnialpha.checkpoint.schedule import Schedule
from omnialpha.errors import OmniAlphaError
from omnialpha.model.sampling import denoise, guide, initial_noise, model_time, sigmas

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("steps", STEPS)
def test_sigmas_are_diffusers_bit_for_bit(steps):
    """One rounding is multiplied by 1000 in the time embedding, and comes out as up to 1e-4 after eight steps."""
    schedule = Schedule.from_config(CONFIG)
    assert schedule == Schedule()
    for tokens in TOKENS:
        assert schedule.mu(tokens) == shift(tokens)
        found, expected = sigmas(steps, tokens, schedule), scheduler(steps, tokens).sigmas
        assert found.dtype == torch.float32 and found.shape == (steps + 1,)
        assert torch.equal(found, expected) or (steps == 1 and expected[0].isnan()), tokens
        assert found[0] == 1 and found[-1] == 0


def processors() -> dict[str, dict[str, str]]:
    """Environments that let NumPy and torch do with less than this processor offers."""
    from numpy._core._multiarray_umath import __cpu_dispatch__ as extras

    wide = [name for name in extras if "512" in name or name == "X86_V4"]
    return {
        "AVX2": {"NPY_DISABLE_CPU_FEATURES": " ".join(wide), "ATEN_CPU_CAPABILITY": "avx2"},
        "least": {"NPY_DISABLE_CPU_FEATURES": " ".join(extras), "ATEN_CPU_CAPABILITY": "default"},
    }


@pytest.mark.parametrize("processor", processors())
def test_sigmas_are_the_same_on_every_processor(processor):
    code = f"""
from omnialpha.model.sampling import model_time, sigmas
for steps in {STEPS}:
    for tokens in {TOKENS}:
        levels = sigmas(steps, tokens)
        print(levels.numpy().tobytes().hex(), model_time(levels).numpy().tobytes().hex())
"""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={**os.environ, **processors()[processor]},
    ).stdout.split()
    here = [sigmas(steps, tokens) for steps in STEPS for tokens in TOKENS]
    assert found == [values.numpy().tobytes().hex() for levels in here for values in (levels, model_time(levels))]


@pytest.mark.parametrize("steps", STEPS[1:])
def test_the_model_is_told_the_time_that_diffusers_tells_it(steps):
    """Its pipeline divides the scheduler's timesteps by 1000, which is not always the level that they were made of."""
    for tokens in TOKENS:
        assert torch.equal(model_time(sigmas(steps, tokens)[:-1]), scheduler(steps, tokens).timesteps / 1000)


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
        for steps in STEPS:
            assert torch.equal(sigmas(steps, tokens, schedule), scheduler(steps, tokens, config).sigmas)


@pytest.mark.parametrize("shift", [1e-6, 0.5, 1.0])
def test_a_static_shift_may_push_the_other_way(shift):
    schedule = Schedule.from_config({"use_dynamic_shifting": False, "shift": shift})
    assert schedule.shift == shift
    few, many = (sigmas(8, tokens, replace(schedule, terminal=None)) for tokens in (1, 10_000))
    assert torch.equal(few, many)
    even = torch.linspace(1, 1 / 8, 8)
    torch.testing.assert_close(few[:8], shift * even / (1 + (shift - 1) * even), atol=1e-6, rtol=0)


def test_other_shifts_equal_diffusers():
    config = CONFIG | {"base_shift": 0.3, "max_shift": 1.2, "shift_terminal": 0.1, "base_image_seq_len": 64}
    schedule = Schedule.from_config(config)
    for steps in STEPS[1:]:
        assert torch.equal(sigmas(steps, 1000, schedule), scheduler(steps, 1000, config).sigmas)


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
    def velocity(x, sigma):
        return torch.sin(x * 3) + sigma

    x = noise = initial_noise(0, 1, 4, 4)
    stock = scheduler(6, 700)
    for sigma, t in zip(stock.sigmas, stock.timesteps, strict=False):
        x = stock.step(velocity(x, sigma), t, x, return_dict=False)[0]
    assert torch.equal(denoise(velocity, noise, sigmas(6, 700)), x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_prediction_is_named_with_its_step(value):
    calls = []

    def velocity(x, sigma):
        calls.append(sigma)
        return torch.full_like(x, value if len(calls) == 3 else 0.0)

    with pytest.raises(OmniAlphaError, match="step 3 of 5"):
        denoise(velocity, torch.zeros(2), sigmas(5, 256))
    assert len(calls) == 3
