"""What can be set about training a VAE. YAML files in `configs/` fill this; `docs/training.md` explains it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import require
from ...errors import OmniAlphaError
from ..config import DataPart
from .first_weights import narrowest
from .losses import MEAN_B, SQUARE_B
from .terms import ADVERSARIAL, PICTURE_TERMS, TERMS

ROLES = ("foreground", "background", "composite", "guide")


@dataclass
class Background:
    """The random backgrounds of the expected composite error: first and second moment per channel, values in [0, 1].

    Attributes:
        mean: E[b] of red, green and blue; a uniform colour's unless told.
        square: E[b^2].
    """

    mean: tuple[float, float, float] = (MEAN_B, MEAN_B, MEAN_B)
    square: tuple[float, float, float] = (SQUARE_B, SQUARE_B, SQUARE_B)

    def __post_init__(self):
        if not all(m * m <= s <= m <= 1 for m, s in zip(self.mean, self.square)):
            raise OmniAlphaError(
                f"background: no colour in [0, 1] has the means {self.mean} and the mean squares {self.square}; a mean "
                "square lies between the squared mean and the mean."
            )


@dataclass
class Critic:
    """The patch discriminator of the adversarial term.

    Attributes:
        start: step from which it takes part: before, decoded pictures are too easy to tell.
        lr: its learning rate (AdamW, with the VAE's betas and schedule).
        width: channels of its first layer, a multiple of 8.
        layers: 3 judge patches of 70 pixels, 2 of 34.
    """

    start: int = 5000
    lr: float = 1.5e-5
    width: int = 64
    layers: int = 3

    def __post_init__(self):
        if self.width < 8 or self.width % 8 or not 1 <= self.layers <= 5 or self.start < 0:
            raise OmniAlphaError(
                f"critic: expected a width that is a multiple of 8, 1 to 5 layers and a start of 0 or more, found "
                f"{self.width}, {self.layers} and {self.start}."
            )


@dataclass
class VAEConfig:
    """`train vae`: an RGBA VAE (paper section 3.2.1), opaquely initialised from an RGB one, or from nothing.

    Attributes:
        data: the data sets; pictures of every role are drawn from them.
        steps: length of the run.
        rgb: an RGB VAE to start from (file or folder, either key layout), by opaque initialisation.
        rgba: an RGBA VAE to go on with. With neither, a VAE is built from nothing.
        base_dim: width of a VAE from nothing.
        channels: 4; or 3 for an RGB VAE from nothing.
        decoder_only: leave the encoder, and so all latents, as they are.
        batch: pictures in a forward pass.
        decoded: share of them that is decoded too. Terms that look at latents alone see all: with `objects`, encoding
            many and decoding few is cheaper.
        accumulate: forward passes to a step.
        seed: of the pictures, the noise and the initialisation.
        optimizer: "adamw", or "muon" for inner convolutions with AdamW for the rest.
        lr, betas: of AdamW.
        muon_lr: of Muon.
        warm, schedule, hold: see `schedule.rate`.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are the ones that get written.
        precision: "fp32" or "bf16".
        sizes: (height, width) in pixels, taken in turn.
        mix: role -> how often it is drawn: "foreground", "background", "composite", "guide".
        loss: term -> weight, of `terms.TERMS` and "adversarial". "perceptual" is left out without `perceptual`, and
            "reference_kl" without `rgb`.
        background: of the term "expected_composite".
        perceptual: local safetensors file with the weights of the term of that name.
        critic: of the term "adversarial".
        blend: how often a picture is put on a random solid colour and becomes opaque.
        hidden: how often pixels under alpha 0 come in with a random colour: latents must not depend on them.
        held_out: data set folder whose test split is measured before and after training.
        workers: processes that read pictures; 0 reads between the steps.
        save_every, log_every, sheet_every: in steps; 0 for never.
    """

    data: tuple[DataPart, ...]
    steps: int
    rgb: str | None = None
    rgba: str | None = None
    base_dim: int = 16
    channels: int = 4
    decoder_only: bool = False
    batch: int = 8
    decoded: float = 1.0
    accumulate: int = 1
    seed: int = 0
    optimizer: str = "adamw"
    lr: float = 1.5e-5
    betas: tuple[float, float] = (0.5, 0.9)
    muon_lr: float = 0.015
    warm: int = 500
    schedule: str = "cosine"
    hold: float = 0.3
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "fp32"
    sizes: tuple[tuple[int, int], ...] = ((512, 512),)
    mix: dict[str, float] = field(
        default_factory=lambda: {"foreground": 0.45, "background": 0.25, "composite": 0.22, "guide": 0.08}
    )
    loss: dict[str, float] = field(
        default_factory=lambda: {
            "expected_composite": 1.0,
            "perceptual": 0.5,
            "kl": 1e-6,
            "reference_kl": 1e-4,
            "adversarial": 0.5,
        }
    )
    background: Background = field(default_factory=Background)
    perceptual: str | None = None
    critic: Critic = field(default_factory=Critic)
    blend: float = 0.3
    hidden: float = 0.3
    held_out: str | None = None
    workers: int = 0
    save_every: int = 500
    log_every: int = 50
    sheet_every: int = 0

    def __post_init__(self):
        known, least = (*TERMS, ADVERSARIAL), narrowest(self.channels)
        checks = {
            "data": (len(self.data) > 0, "one data set or more"),
            "rgb": (not (self.rgb and self.rgba), "only one of rgb and rgba"),
            "channels": (
                self.channels in (3, 4) and not (self.channels == 3 and (self.rgb or self.rgba)),
                "4, or 3 for an RGB VAE from nothing",
            ),
            "blend": (
                0 <= self.blend <= 1 and (self.channels == 4 or self.blend == 1 or self._only_opaque()),
                "a share from 0 to 1, and 1 for an RGB VAE that is shown foregrounds",
            ),
            "hidden": (0 <= self.hidden <= 1, "a share from 0 to 1"),
            "mix": (
                set(self.mix) <= set(ROLES) and sum(self.mix.values()) > 0 <= min(self.mix.values()),
                f"shares of {', '.join(ROLES)}",
            ),
            "loss": (set(self.loss) <= set(known), f"terms among {', '.join(known)}"),
            "sizes": (
                bool(self.sizes) and all(side % 8 == 0 and side >= 32 for size in self.sizes for side in size),
                "sides of 32 pixels or more, multiples of 8",
            ),
            "decoder_only": (not self.decoder_only or bool(self.rgba), "an `rgba` VAE whose encoder stays"),
            "optimizer": (self.optimizer in ("adamw", "muon"), "adamw or muon"),
            "schedule": (self.schedule in ("constant", "cosine", "linear"), "constant, cosine or linear"),
            "precision": (self.precision in ("fp32", "bf16"), "fp32 or bf16"),
            "hold": (0 <= self.hold < 1, "a share below 1"),
            "base_dim": (
                self.rgb or self.rgba or self.base_dim >= least,
                f"{least} or more: a VAE from nothing starts by carrying its channels with both signs",
            ),
            "steps": (self.steps >= 1, "1 or more"),
            "batch": (self.batch >= 1, "1 or more"),
            "decoded": (0 < self.decoded <= 1, "a share above 0"),
            "accumulate": (self.accumulate >= 1, "1 or more"),
            "workers": (self.workers >= 0, "0 or more"),
        }
        require(self, checks)
        if not any(self.loss.get(name, 0) > 0 for name in PICTURE_TERMS):
            raise OmniAlphaError(f"loss: {self.loss} compares no pictures; give {' or '.join(PICTURE_TERMS)} a weight.")

    def _only_opaque(self) -> bool:
        return not self.mix.get("foreground")
