"""Train the embedded backbone `mini` with the flow-matching loss.

    python recipes/train_mini.py --data DATA --work WORK --steps 6000
    python recipes/train_mini.py --work WORK --ship engine/weights/mini.safetensors

DATA holds the folders of clips and photos that `footage.py` lists.  WORK keeps the decoded
material, the checkpoint (written every `--save-every` steps; the same command resumes it) and
`log.jsonl`.
The learning rate is constant after a warm-up and falls linearly to zero over the last quarter, so
that a longer `--steps` given on resuming continues where a shorter one would have ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from footage import Footage, decode_clip
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from dtg_restore.bench.degrade import Distortion, degrade
from dtg_restore.bench.material import CLIP_FOLDERS, HELD_OUT
from dtg_restore.engine.backbones.mini import PHASES, TAGS, MiniConfig, MiniDiT
from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.codecs import patch

logger = logging.getLogger("train_mini")

# (samples, frames, side) of a batch and how often it comes: about 2048 tokens each.
SHAPES = (((8, 8, 64), 0.5), ((4, 16, 64), 0.25), ((4, 8, 96), 0.18), ((2, 16, 96), 0.07))
T_MAX = 0.45  # restoration starts far below t = 1; a tenth of the samples lie above all the same
CLEAN, DEGRADED, NULL = range(len(TAGS))


def to_model(frames: Tensor) -> Tensor:
    """Frames (T, 3, H, W) in [0, 1] to x (3, T, H, W) in [-1, 1]."""
    return frames.permute(1, 0, 2, 3) * 2 - 1


class Batches(IterableDataset):
    """Endless (x0, tags): half of the clips are degraded, a quarter of the tags is hidden."""

    def __init__(self, data: Path, cache: Path, seed: int):
        self.footage, self.seed = Footage(data, cache), seed

    def sample(self, rng: np.random.Generator, frames: int, side: int) -> tuple[Tensor, int]:
        crop = torch.from_numpy(self.footage.cut(rng, frames, side))
        clip, tag = crop.permute(0, 3, 1, 2).float() / 255, CLEAN
        if rng.random() < 0.5:
            distortion = Distortion.sample(rng.uniform(0.2, 1.1), rng, keep=0.7)
            clip, tag = degrade(clip, distortion, rng), DEGRADED
        return to_model(clip), NULL if rng.random() < 0.25 else tag

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        shapes, odds = zip(*SHAPES, strict=True)
        while True:
            count, frames, side = shapes[rng.choice(len(shapes), p=odds)]
            clips, tags = zip(*(self.sample(rng, frames, side) for _ in range(count)), strict=True)
            yield torch.stack(clips), torch.tensor(tags)


def held_out_clips(
    data: Path, count: int = 24, frames: int = 8, side: int = 64
) -> tuple[Tensor, Tensor]:
    """Fixed clean crops of the held-out scenes and their severe degradation, (N, 3, T, H, W)."""
    rng = np.random.default_rng(1234)
    names = [
        p
        for d in CLIP_FOLDERS
        for p in sorted((data / d).glob("*.mp4"))
        if p.name.startswith(HELD_OUT)
    ]
    clips = [decode_clip(path) for path in names]
    clean, bad = [], []
    for i in range(count):
        clip = clips[i % len(clips)]
        start, y, x = (
            rng.integers(s - n + 1) for s, n in zip(clip.shape, (frames, side, side), strict=False)
        )
        crop = torch.from_numpy(clip[start : start + frames, y : y + side, x : x + side])
        crop = crop.permute(0, 3, 1, 2).float() / 255
        clean.append(to_model(crop))
        bad.append(to_model(degrade(crop, Distortion.sample(1.0, rng), rng)))
    return torch.stack(clean), torch.stack(bad)


def velocity_loss(
    model: MiniDiT, x0: Tensor, tags: Tensor, t: Tensor, eps: Tensor, phase: patch.Phase
) -> Tensor:
    """Mean squared error of the velocity, E |v - (eps - x0)|^2."""
    level = t[:, None, None, None, None]
    x = (1 - level) * x0 + level * eps
    return (model(x, t, model.condition(t, tags, phase)).float() - (eps - x0)).square().mean()


@torch.no_grad()
def measure(model: MiniDiT, clean: Tensor, bad: Tensor) -> dict[str, float]:
    """Held-out losses by tag, and the gain in PSNR of one clean-tag prediction from t = 0.2."""
    generator = torch.Generator().manual_seed(7)
    eps = torch.randn(clean.shape, generator=generator)
    t = torch.linspace(0.03, 0.6, len(clean))
    result = {}
    for name, x0, tag in (
        ("clean", clean, CLEAN),
        ("degraded", bad, DEGRADED),
        ("null", bad, NULL),
    ):
        tags = torch.full((len(x0),), tag)
        result[f"loss_{name}"] = velocity_loss(model, x0, tags, t, eps, PHASES[0]).item()
    t = torch.full((len(clean),), 0.2)
    x = 0.8 * bad + 0.2 * eps
    x0 = x - 0.2 * model(x, t, model.condition(t, torch.full((len(clean),), CLEAN)))

    def psnr(a: Tensor) -> Tensor:
        return -10 * ((a.clamp(-1, 1) - clean) / 2).square().mean(dim=(1, 2, 3, 4)).log10()

    result["psnr_gain"] = (psnr(x0) - psnr(bad)).mean().item()
    return result


def statistics(batches: Batches, count: int = 400) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every latent channel over clean and degraded crops."""
    rng, total, squares = np.random.default_rng(99), 0.0, 0.0
    for _ in range(count):
        z = patch.encode(batches.sample(rng, 8, 64)[0][None]).flatten(0, 3).double()
        total, squares = total + z.mean(0), squares + z.square().mean(0)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-6).sqrt().float()


class Training:
    """The state of a run: model, moving average, optimisers, step."""

    def __init__(self, config: MiniConfig, learning_rate: float, seed: int):
        torch.manual_seed(seed)
        self.model, self.average = MiniDiT(config), MiniDiT(config)
        self.average.load_state_dict(self.model.state_dict())
        matrices, others = [], []
        for name, parameter in self.model.named_parameters():
            inside = name.startswith("blocks.") and parameter.ndim == 2
            (matrices if inside else others).append(parameter)
        self.optimisers = [
            torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.learning_rate, self.step, self.seconds = learning_rate, 0, 0.0

    def advance(
        self, loss: Tensor, num_steps: int, warm_up: int = 200, decay: float = 0.25
    ) -> None:
        factor = min(1.0, (self.step + 1) / warm_up, (num_steps - self.step) / (decay * num_steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(0.999, self.step / (self.step + 10))
        for mine, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 1 - keep)

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    t = T_MAX * torch.rand(count, generator=generator).clamp_min(0.02)
    high = torch.rand(count, generator=generator) < 0.1
    return torch.where(high, T_MAX + (1 - T_MAX) * torch.rand(count, generator=generator), t)


def train(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    run = Training(MiniConfig(), args.learning_rate, args.seed)
    checkpoint, log = args.work / "mini.pt", args.work / "log.jsonl"
    if checkpoint.exists():
        run.load(checkpoint)
    batches = Batches(args.data, args.work / "footage", args.seed + run.step)
    if run.step == 0:
        mean, sd = statistics(batches)
        for model in (run.model, run.average):
            model.mean.copy_(mean), model.sd.copy_(sd)
    run.model.to(device), run.average.to(device)
    clean, bad = held_out_clips(args.data)
    generator = torch.Generator().manual_seed(args.seed + run.step)
    half = torch.autocast(device.type, torch.bfloat16) if args.bf16 else nullcontext()
    losses: list[float] = []
    for x0, tags in DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=3):
        start = time.monotonic()
        t = draw_times(len(x0), generator).to(device)
        x0, tags = x0.to(device), tags.to(device)
        phase = PHASES[int(torch.randint(len(PHASES), (), generator=generator))]
        with half:
            loss = velocity_loss(run.model, x0, tags, t, torch.randn_like(x0), phase)
        run.advance(loss, args.steps)
        losses.append(loss.item())
        run.seconds += time.monotonic() - start
        if run.step % args.save_every == 0 or run.step == args.steps:
            run.save(checkpoint)
            entry = {
                "step": run.step,
                "seconds": round(run.seconds),
                "loss": float(np.mean(losses)),
            }
            entry |= measure(run.average.cpu(), clean, bad)
            run.average.to(device)
            losses.clear()
            logger.info(json.dumps(entry))
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        if run.step >= args.steps:
            return


def ship(args: argparse.Namespace) -> None:
    """Write the moving average as fp16 safetensors with its configuration and card."""
    run = Training(MiniConfig(), args.learning_rate, args.seed)
    run.load(args.work / "mini.pt")
    last = json.loads((args.work / "log.jsonl").read_text().splitlines()[-1])
    card = {"steps": run.step, "training_seconds": round(run.seconds), "held_out": last}
    save_checkpoint(args.ship, run.average.state_dict(), run.model.describe(), card)
    logger.info("wrote %s", args.ship)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with clips/, clips2/, photos/, photos2/")
    parser.add_argument("--work", type=Path, required=True, help="cache, checkpoint and log")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast, where the hardware has it")
    parser.add_argument("--ship", type=Path, help="write the weights here instead of training")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    if args.ship:
        ship(args)
    elif args.data is None:
        parser.error("--data is needed for training")
    else:
        train(args)


if __name__ == "__main__":
    main()
