"""How a checkpoint wants its noise levels spaced, from diffusers' scheduler config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import OmniAlphaError

# Sampler options of diffusers' scheduler configs that would change the picture and that this sampler does not have.
_FOREIGN_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class Schedule:
    """How noise levels are spaced; the defaults are Qwen-Image's.

    Attributes:
        base_shift: shift mu at `base_tokens` target tokens.
        max_shift: shift mu at `max_tokens` target tokens; other counts lie on the same line, also beyond both ends.
        base_tokens: see `base_shift`.
        max_tokens: see `max_shift`.
        terminal: last noise level before zero, None to leave the shifted levels as they are.
        shift: factor of one shift for all sizes, in place of exp(mu); None where the number of tokens decides.
    """

    base_shift: float = 0.5
    max_shift: float = 0.9
    base_tokens: int = 256
    max_tokens: int = 8192
    terminal: float | None = 0.02
    shift: float | None = None

    def mu(self, target_tokens: int) -> float:
        """The shift for that many target tokens, all target layers together; rounded as diffusers rounds it."""
        if self.shift is not None:
            return math.log(self.shift)
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        return target_tokens * slope + (self.base_shift - slope * self.base_tokens)

    @classmethod
    def from_config(cls, config: Mapping) -> Schedule:
        """From a diffusers `scheduler_config.json` (FlowMatchEulerDiscreteScheduler).

        A key that is absent keeps Qwen-Image's value. A config without dynamic shifting has one shift for all sizes.

        Raises:
            OmniAlphaError: a value of the wrong type, or an option that this sampler does not have.
        """
        _refuse_foreign_options(config)
        base, top = _number(config, "base_shift", cls.base_shift), _number(config, "max_shift", cls.max_shift)
        static = config.get("use_dynamic_shifting") is False
        few = int(_number(config, "base_image_seq_len", cls.base_tokens))
        many = int(_number(config, "max_image_seq_len", cls.max_tokens))
        if few == many:
            raise OmniAlphaError(f"The scheduler config has base_image_seq_len = max_image_seq_len = {few}.")
        stretched = config.get("shift_terminal", cls.terminal) is not None
        terminal = _number(config, "shift_terminal", cls.terminal, least=0, below=1) if stretched else None
        return cls(
            base,
            top,
            few,
            max_tokens=many,
            terminal=terminal,
            shift=_number(config, "shift", 1.0, least=1e-6) if static else None,
        )


def _refuse_foreign_options(config: Mapping) -> None:
    foreign = [name for name in _FOREIGN_OPTIONS if config.get(name)]
    if config.get("time_shift_type", "exponential") != "exponential":
        foreign.append(f"time_shift_type={config['time_shift_type']}")
    if foreign:
        raise OmniAlphaError(
            f"The scheduler config asks for {', '.join(foreign)}, which OmniAlpha's sampler does not have. "
            f"Use the scheduler_config.json of Qwen-Image-Edit-2509."
        )


def _number(config: Mapping, key: str, default: float | None, least: float = -1e6, below: float = 1e6) -> float:
    """A number of the config, least <= number < below; `default` where the key is absent."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
        raise OmniAlphaError(
            f"The scheduler config has {key} = {value!r}; expected a number from {least:g} to below {below:g}."
        )
    return value
