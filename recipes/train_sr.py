"""Train the embedded super-resolution networks.

    python recipes/train_sr.py --scale 4 --data DATA --work WORK4 --minutes 60
    python recipes/train_sr.py --scale 2 --data DATA --work WORK2 --minutes 60 --init WORK4/last.pt
    python recipes/train_sr.py --scale 2 --work WORK2 --ship engine/weights/mini-x2.safetensors

L1 (or L2) loss, Muon for the body and Adam for the rest (Adam alone needs twice the steps), cosine
learning rate to the end of the budget, averaged weights.  `WORK/last.pt`
holds everything that is needed to go on: the same command continues an interrupted run, a larger
budget extends a finished one.  `WORK/log.jsonl` has one line per measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sr_data import CropSampler, load_pictures
from sr_eval import bicubic, measure, vid4_pairs
from torch import Tensor, nn

from dtg_restore.engine.checkpoint import save_checkpoint
from dtg_restore.engine.sr.mini import MiniSR


@dataclass(frozen=True)
class Settings:
    """What a run is: kept in its checkpoint."""

    scale: int
    width: int = 48
    depth: int = 8
    side: int = 32
    batch: int = 16
    loss: str = "l1"
    rate: float = 1e-3
    final_rate: float = 1e-6
    warm_up: int = 200
    ema: float = 0.999
    seed: int = 0


def as_matrix(kernel: Tensor) -> Tensor:
    """(out, in, 3, 3) in channels-last memory -> (out, 9 in), without a copy."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


class Run:
    """Network, its average, optimiser and counters; `step` and `seconds` survive a restart."""

    def __init__(self, settings: Settings, device: str):
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        self.net = MiniSR(settings.scale, settings.width, settings.depth)
        self.net.to(device, memory_format=torch.channels_last)
        self.average = {key: value.clone() for key, value in self.net.state_dict().items()}
        # Muon takes matrices: views of the convolutions as (out, 9 in), in the weights' memory.
        self.kernels = [conv.weight for conv in self.net.body]
        self.matrices = [nn.Parameter(as_matrix(kernel.detach())) for kernel in self.kernels]
        others = set(self.net.parameters()) - set(self.kernels)
        self.optimisers = [
            torch.optim.Muon(
                self.matrices, settings.rate, weight_decay=0, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.Adam(
                [p for p in self.net.parameters() if p in others], settings.rate, betas=(0.9, 0.99)
            ),
        ]
        self.step, self.seconds = 0, 0.0

    def learning_rate(self, done: float) -> float:
        """Cosine in `done` (0 .. 1, the part of the budget that is spent), after a warm-up."""
        s = self.settings
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        rate = s.final_rate + (s.rate - s.final_rate) * cosine
        return rate * min(1.0, (self.step + 1) / s.warm_up)

    def train_step(self, lr: Tensor, hr: Tensor, done: float, bf16: bool) -> float:
        lr = lr.to(memory_format=torch.channels_last)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=bf16):
            error = self.net(lr).float() - hr
            loss = error.abs().mean() if self.settings.loss == "l1" else error.square().mean()
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = as_matrix(kernel.grad)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate(done)
            optimiser.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.net.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def averaged(self) -> MiniSR:
        """A copy of the network with the averaged weights, in fp32."""
        net = MiniSR(self.settings.scale, self.settings.width, self.settings.depth)
        net.load_state_dict(self.average)
        return net.to(self.device, memory_format=torch.channels_last).eval()

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "settings": asdict(self.settings),
                "net": self.net.state_dict(),
                "average": self.average,
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path) -> None:
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["settings"] != asdict(self.settings):
            raise SystemExit(f"{path} was made with {saved['settings']}: use another --work")
        self.net.load_state_dict(saved["net"])
        self.average = saved["average"]
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]

    def start_from(self, path: Path) -> None:
        """Take the weights of another run; from one at another scale all but the tail."""
        saved = torch.load(path, map_location=self.device, weights_only=True)["average"]
        own = self.net.state_dict()
        fitting = {key: value for key, value in saved.items() if value.shape == own[key].shape}
        self.net.load_state_dict({**own, **fitting})
        self.average = {key: value.clone() for key, value in self.net.state_dict().items()}


@torch.inference_mode()
def held_out(run: Run, pairs: dict, baseline: dict) -> dict[str, float]:
    """Gain in PSNR-Y over bicubic, mean over the clips, per kind of LR."""
    net = run.averaged()
    table = measure(lambda lr: net(lr.to(run.device)).cpu(), pairs, run.settings.scale)
    return {kind: round(row["mean"] - baseline[kind]["mean"], 3) for kind, row in table.items()}


def train(run: Run, args: argparse.Namespace) -> None:
    s = run.settings
    # a restart continues with fresh crops rather than repeating those already seen
    rng = np.random.default_rng([s.seed, run.step])
    sampler = CropSampler(load_pictures(args.data, args.cache, s.scale), s.scale, s.side, rng)
    pairs = vid4_pairs(args.data, s.scale, slice(3, 4))
    baseline = measure(lambda lr: bicubic(lr, s.scale), pairs, s.scale)
    losses: list[float] = []
    clock = time.monotonic()

    def part_done() -> float:
        return max(run.seconds / (60 * args.minutes), run.step / args.steps)

    while (done := part_done()) < 1:
        lr, hr = sampler.batch(s.batch, run.device)
        losses.append(run.train_step(lr, hr, done, args.bf16))
        run.seconds += time.monotonic() - clock
        clock = time.monotonic()
        if run.step % args.every == 0 or part_done() >= 1:
            line = {
                "step": run.step,
                "minutes": round(run.seconds / 60, 2),
                "loss": round(sum(losses) / len(losses), 6),
                "rate": run.learning_rate(done),
                "gain_db": held_out(run, pairs, baseline),
            }
            with open(args.work / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            run.save(args.work / "last.pt")
            losses.clear()
            clock = time.monotonic()  # measuring is not training


def ship(run: Run, work: Path, target: Path) -> None:
    """Write the averaged weights as the engine reads them."""
    s = run.settings
    card = {
        "settings": asdict(s),
        "steps": run.step,
        "minutes": round(run.seconds / 60, 1),
        "held_out": json.loads((work / "log.jsonl").read_text().splitlines()[-1])["gain_db"],
        "data": "see the model card beside the weights",
    }
    config = {"kind": "mini", "scale": s.scale, "width": s.width, "depth": s.depth}
    save_checkpoint(target, run.average, config, card)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, choices=(2, 4), required=True)
    parser.add_argument("--data", type=Path, help="folder that holds photos, clips, vsr")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--cache", type=Path, default=Path("out/sr_cache"))
    parser.add_argument("--loss", choices=("l1", "l2"), default="l1", help="l2 for a last phase")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="peak learning rate")
    parser.add_argument("--init", type=Path, help="last.pt of a run to start from")
    parser.add_argument("--minutes", type=float, default=math.inf, help="budget of training time")
    parser.add_argument("--steps", type=float, default=math.inf, help="budget of steps")
    parser.add_argument("--every", type=int, default=1000, help="steps between measurements")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast; fp32 master weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ship", type=Path, help="write the averaged weights here, train nothing")
    args = parser.parse_args()
    if not args.ship and (not args.data or math.isinf(min(args.minutes, args.steps))):
        parser.error("training needs --data and a budget, --minutes or --steps")
    return args


def main() -> None:
    args = parse_arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    settings = Settings(args.scale, loss=args.loss, rate=args.rate, seed=args.seed)
    run = Run(settings, args.device)
    if (args.work / "last.pt").is_file():
        run.restore(args.work / "last.pt")
    elif args.ship:
        raise SystemExit(f"nothing to ship in {args.work}")
    elif args.init:
        run.start_from(args.init)
    if args.ship:
        ship(run, args.work, args.ship)
    else:
        train(run, args)


if __name__ == "__main__":
    main()
