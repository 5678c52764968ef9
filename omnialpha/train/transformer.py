"""Train micro's transformer and text encoder jointly on all tasks by flow matching (paper section 3.3).

    python -m omnialpha.train.transformer --packages node_modules --vae runs/vae --latents runs/latents \\
        --out runs/micro --minutes 90

On several cores, one process each is faster than one process with threads:

    torchrun --nproc-per-node 2 -m omnialpha.train.transformer ...

Every few minutes a complete checkpoint with averaged weights is written to `--out`; the library can use it at once.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict, deque
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..checkpoint import load_tensors
from ..data.objects import find_objects
from ..rope import install_rope
from ..sequence import pack
from ..tasks import TASKS, Task
from .architecture import build_text_encoder, build_tokenizer, build_transformer
from .assemble import write_json, write_models, write_vae
from .latents import Shards
from .muon import Muon
from .prompts import PromptEncoder
from .schedule import Average, Budget, set_rate, warm_then_linear

# How often each task is drawn. Tasks of a family help each other; the unguided ones are hardest and come most often.
WEIGHTS = {
    "text_to_rgba": 40, "text_to_layers": 3,
    "fg_to_full": 1.5, "bg_to_full": 1.5, "fg_to_bg": 1, "bg_to_fg": 1,
    "matting_auto": 16, "matting_text": 6, "matting_trimap": 10, "matting_mask": 5, "matting_coarse_mask": 5,
    "removal_auto": 6, "removal_text": 3, "removal_trimap": 3, "removal_mask": 5, "removal_coarse_mask": 3,
    "decomposition_auto": 12, "decomposition_text": 4, "decomposition_trimap": 4, "decomposition_mask": 3,
    "decomposition_coarse_mask": 3,
}  # fmt: skip
INSTRUCTION_DROPOUT = 0.05  # for classifier-free guidance: the empty negative prompt has to mean "any"
CAPTION_RATE = 0.5  # how often a task that can do without text gets some


def instruction_for(task: Task, name: str, rng: np.random.Generator) -> str:
    """What a sample is told: the task's wording with the object's name where it belongs, or nothing at all."""
    if rng.random() < INSTRUCTION_DROPOUT:
        return ""
    wants_text = task.needs_text or (task.text == "optional" and rng.random() < CAPTION_RATE)
    return task.fill(name if wants_text else "")


def draw_times(count: int) -> torch.Tensor:
    """Noise levels t in (0, 1), denser near pure noise: few-step sampling lives there. [count]"""
    u = torch.rand(count)
    return 2 * u / (1 + u)


def task_loss(transformer, prompts: PromptEncoder, task: Task, batch: dict, rng: np.random.Generator) -> torch.Tensor:
    """Mean squared velocity error over the target layers; x_t = (1 - t) x_0 + t noise, v = noise - x_0."""
    instructions = [instruction_for(task, name, rng) for name in batch["names"]]
    context, mask = prompts(instructions, [batch[f"seen.{role}"] for role in task.inputs])
    clean = torch.stack([batch[role] for role in task.targets], dim=2)  # [B, 16, m, h, w]
    noise = torch.randn_like(clean)
    t = draw_times(len(clean))
    noisy = torch.lerp(clean, noise, t.view(-1, 1, 1, 1, 1))
    tokens, shapes = pack(noisy, [batch[role] for role in task.inputs])
    wanted, _ = pack(noise - clean, [])
    velocity = transformer(
        hidden_states=tokens, encoder_hidden_states=context, encoder_hidden_states_mask=mask, timestep=t,
        img_shapes=shapes, return_dict=False,
    )[0]  # fmt: skip
    return (velocity[:, : wanted.shape[1]] - wanted).pow(2).mean()


def make_optimizers(named: list[tuple[str, torch.nn.Parameter]], args: argparse.Namespace):
    """Muon for the matrices inside blocks, AdamW for embeddings, modulations, norms, biases and the two ends."""

    def inner(name: str, param: torch.nn.Parameter) -> bool:
        block = "transformer_blocks" in name or ".layers." in name or ".blocks." in name
        return param.ndim == 2 and block and "_mod" not in name

    matrices = [param for name, param in named if inner(name, param)]
    others = [param for name, param in named if not inner(name, param)]
    precision = torch.bfloat16 if args.bf16 else torch.float32
    return [
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0),
        Muon(matrices, lr=args.muon_lr, precision=precision),
    ]


@torch.no_grad()
def average_gradients(accelerator, params: list[torch.nn.Parameter]) -> None:
    """Mean over processes, in one message. All processes draw the same tasks, so the same parameters have gradients.

    DistributedDataParallel would need one module with one forward and a gradient for every parameter; the last block's
    text branch never gets one.
    """
    if accelerator.num_processes == 1:
        return
    grads = [param.grad for param in params if param.grad is not None]
    mean = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, part in zip(grads, mean.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def train(args: argparse.Namespace) -> None:
    """Run, log to `log.jsonl`, and keep a usable checkpoint in `out`."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16" if args.bf16 else "no")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)  # the same start everywhere
    out = Path(args.out)
    names = [entry.name for entry in find_objects(args.packages) if entry.split == "train"]
    tokenizer = build_tokenizer(names)
    text_encoder, transformer = build_text_encoder(tokenizer), install_rope(build_transformer())
    if args.start_from:
        for part, model in (("transformer", transformer), ("text_encoder", text_encoder)):
            model.load_state_dict(load_tensors(Path(args.start_from) / part), strict=part == "transformer")
    torch.manual_seed(args.seed + 1000 * (accelerator.process_index + 1))  # different noise
    task_rng = np.random.default_rng(args.seed)
    rng = np.random.default_rng([args.seed, accelerator.process_index])
    prompts = PromptEncoder(text_encoder, tokenizer)
    modules = {"transformer": transformer, "text_encoder": text_encoder.model}
    named = [(f"{key}.{name}", param) for key, module in modules.items() for name, param in module.named_parameters()]
    params = [param for _, param in named]
    opts = make_optimizers(named, args)
    average = Average(named, decay=0.998)
    tasks, weights = [TASKS[task] for task in WEIGHTS], np.array(list(WEIGHTS.values()))
    shards, losses = Shards(args.latents), defaultdict(lambda: deque(maxlen=100))
    if accelerator.is_main_process:
        write_vae(Path(args.vae), out / "vae")
    budget, step, saved = Budget(args.minutes), 0, 0.0

    def save() -> None:
        average.swap()
        write_models(transformer, text_encoder, tokenizer, out)
        average.swap()
        write_json(out / "training.json", {**vars(args), "steps": step, "minutes_done": round(budget.spent / 60, 1)})

    # The clocks of the processes differ a little; all have to stop at the same step.
    while (done := float(accelerator.reduce(torch.tensor(budget.done), "mean"))) < 1:
        set_rate(opts, warm_then_linear(step, done, hold=args.hold))
        for task in task_rng.choice(tasks, args.tasks_per_step, p=weights / weights.sum()):
            batch = shards.draw(len(task.inputs) + len(task.targets), args.batch, rng)
            # Fused attention has a slow bfloat16 backward pass on CPUs; at a hundred tokens plain products are faster.
            with accelerator.autocast(), sdpa_kernel(SDPBackend.MATH) if args.bf16 else nullcontext():
                loss = task_loss(transformer, prompts, task, batch, rng)
            (loss / args.tasks_per_step).backward()
            losses[task.id].append(float(loss.detach()))
        average_gradients(accelerator, params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        step += 1
        average.update()
        if not accelerator.is_main_process:
            continue
        if step % args.log_every == 0:
            record = {"step": step, "minute": round(budget.spent / 60, 2)}
            record |= {task: round(float(np.mean(losses[task])), 4) for task in WEIGHTS if losses[task]}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
        if budget.spent - saved > 240:
            saved = budget.spent
            save()
    if accelerator.is_main_process:
        save()


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, help="node_modules folder with the emoji packages")
    parser.add_argument("--vae", required=True, help="the trained VAE")
    parser.add_argument("--latents", required=True, help="folder of shards")
    parser.add_argument("--out", required=True, help="folder for the checkpoint")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=24, help="samples per task, step and process")
    parser.add_argument("--tasks-per-step", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast; on CPUs only with AVX-512 BF16")
    parser.add_argument("--start-from", metavar="FOLDER", help="go on with the weights of this checkpoint")
    parser.add_argument("--hold", type=float, default=0.5, help="share of the run before the rate starts to fall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--log-every", type=int, default=100)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
