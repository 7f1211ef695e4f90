"""Train an ordinary ReLU network (no spikes) and export it to ONNX, for `edgesnn convert`.

    python examples/train_ann.py lenet --data mnist --out lenet.onnx --epochs 12 --seed 1

Beside lenet.onnx it writes lenet-calibration.npz (1000 raw training samples), lenet-test.npz (raw test samples
with labels), lenet.json (accuracy, normalisation, command) and, after every epoch that is the best so far,
lenet.pt (the weights). Samples are uint8[N, C, H, W] in the files and are normalised outside of the network, as
(x / 255 - mean) / std. The epoch is chosen on samples held out of train; test is looked at once, at the end.
A run that was cut short is exported by the same command with `--state lenet.pt --epochs 0`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesnn.data import load
from edgesnn.data.dataset import Dataset, stratified_split
from edgesnn.targets.errors import EdgesnnError

# What is usual for these sets; any other set's are computed from its training samples.
MEAN_STD = {
    "mnist": ([0.1307], [0.3081]),
    "fashion-mnist": ([0.2860], [0.3530]),
    "cifar10-jpeg": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


def conv(
    before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution of the same size (at stride 1) and its batch norm."""
    made = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [made, nn.BatchNorm2d(after)]


def lenet(channels: int, classes: int, size: int = 28) -> nn.Sequential:
    """Two 5x5 convolutions with max-pooling, two dense layers."""
    features = 32 * (size // 4) ** 2
    return nn.Sequential(
        *conv(channels, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        *conv(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


def lenet_s(channels: int, classes: int, size: int = 28) -> nn.Sequential:
    """About 80,000 weights: the first convolution strides, the second pools."""
    features = 32 * (size // 4) ** 2 // 2
    return nn.Sequential(
        *conv(channels, 16, 5, 2), nn.ReLU(),
        *conv(16, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(features, 90), nn.ReLU(), nn.Linear(90, classes),
    )  # fmt: skip


def vgg(channels: int, classes: int, size: int = 32) -> nn.Sequential:
    """Three stages of 3x3 convolutions, the first of them thin, then a global average."""
    return nn.Sequential(
        *conv(channels, 32), nn.ReLU(), nn.MaxPool2d(2),
        *conv(32, 64), nn.ReLU(), *conv(64, 64), nn.ReLU(), nn.MaxPool2d(2),
        *conv(64, 112), nn.ReLU(), *conv(112, 144), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(144, classes),
    )  # fmt: skip


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + skip(x)); the skip is 1x1 where the size changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(before, after, 3, stride), nn.ReLU(), *conv(after, after))
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*conv(before, after, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet(channels: int, classes: int, size: int = 32) -> nn.Sequential:
    """A thin stem and four residual blocks."""
    return nn.Sequential(
        *conv(channels, 16), nn.ReLU(),
        Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1),
        *conv(64, 128), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes),
    )  # fmt: skip


class Levels(nn.Module):
    """A ReLU of 2^bits - 1 equal steps: step * round(clip(x / step, 0, 2^bits - 1)).

    The step is learned; the gradient passes the rounding as if it were not there (LSQ, Esser et al. 2020,
    equations 1 to 3, without their scaling of the step's gradient).
    """

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.step = nn.Parameter(torch.tensor(0.4))
        self.frozen: float | None = None

    def freeze(self) -> None:
        """Make the step a constant, which is how ONNX wants it: Clip, QuantizeLinear, DequantizeLinear."""
        self.frozen = self.step.item()

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen is not None:
            # ONNX has no type of three bits: the clip bounds the levels, uint8 holds them.
            bounded = torch.clamp(x, 0.0, self.top * self.frozen)
            return torch.fake_quantize_per_tensor_affine(bounded, self.frozen, 0, 0, 255)
        scaled = torch.clamp(x / self.step, 0.0, float(self.top))
        return (scaled + (torch.round(scaled) - scaled).detach()) * self.step


def quantised(net: nn.Sequential, bits: int = 3) -> nn.Sequential:
    """The same chain with Levels in the place of every ReLU."""
    return nn.Sequential(*(Levels(bits) if isinstance(m, nn.ReLU) else m for m in net))


def quant3(channels: int, classes: int, size: int = 28) -> nn.Sequential:
    """lenet whose activations have three bits."""
    return quantised(lenet(channels, classes, size))


def quant3_vgg(channels: int, classes: int, size: int = 32) -> nn.Sequential:
    """vgg whose activations have three bits."""
    return quantised(vgg(channels, classes, size))


def separable(channels: int, classes: int, size: int = 28) -> nn.Sequential:
    """Depthwise-separable convolutions with ReLU6."""
    body: list[nn.Module] = [*conv(channels, 16, 3, 2), nn.ReLU6()]
    for before, after, stride in ((16, 32, 1), (32, 48, 2), (48, 64, 1)):
        body += [*conv(before, before, 3, stride, groups=before), nn.ReLU6()]
        body += [*conv(before, after, 1), nn.ReLU6()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def signal(channels: int, classes: int, size: int = 64) -> nn.Sequential:
    """A 1-D net for signals [N, channels, size]."""
    return nn.Sequential(
        nn.Conv1d(channels, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip


NETS: dict[str, Callable[..., nn.Module]] = {
    f.__name__.replace("_", "-"): f
    for f in (lenet, lenet_s, vgg, resnet, quant3, quant3_vgg, separable, signal)
}


def augmented(x: Tensor, flip: bool, reach: int, generator: torch.Generator) -> Tensor:
    """Each sample moved by up to `reach` pixels, half of them mirrored."""
    n, _, h, w = x.shape
    if reach:
        wide = F.pad(x, (reach,) * 4)
        dy, dx = torch.randint(0, 2 * reach + 1, (2, n), generator=generator)
        rows = dy[:, None] + torch.arange(h)
        columns = dx[:, None] + torch.arange(w)
        x = wide[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        x = x.permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def accuracy(net: nn.Module, x: Tensor, y: Tensor, prepare: Callable[[Tensor], Tensor]) -> float:
    """Share of samples whose largest score is their label's."""
    net.eval()
    with torch.no_grad():
        hits = [
            net(prepare(a)).argmax(1) == b for a, b in zip(x.split(500), y.split(500), strict=True)
        ]
    return float(torch.cat(hits).float().mean())


def export(net: nn.Module, example: Tensor, path: Path | str, *, dynamo: bool = False) -> None:
    """Write a copy of the net in evaluation mode as ONNX.

    dynamo: torch's newer exporter (needs onnxscript), the example's batch; else TorchScript's, any batch.
    """
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, Levels):
            module.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(net, (example,), dynamo=True, verbose=False)
            assert program is not None
            program.save(str(path))
        else:
            torch.onnx.export(
                net, (example,), str(path), dynamo=False, opset_version=17,
                input_names=["x"], output_names=["scores"], dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
            )  # fmt: skip


def maps(data: Dataset) -> tuple[Tensor, Tensor]:
    """(uint8[N, C, H, W], int64[N]) of a data set."""
    if data.dtype != "uint8":
        raise EdgesnnError(f"{data.name}: {data.dtype} samples; this script trains on uint8 images")
    return torch.from_numpy(np.ascontiguousarray(data.x.transpose(0, 3, 1, 2))), torch.from_numpy(
        data.y
    )


def mean_std(name: str, x: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of x / 255, four digits."""
    if name in MEAN_STD:
        return MEAN_STD[name]
    values = x.double() / 255
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3)).clamp(min=1e-3)
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]


def fit(
    net: nn.Module,
    samples: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    prepare: Callable[[Tensor], Tensor],
    options: argparse.Namespace,
    generator: torch.Generator,
) -> float:
    """Train and leave the net at its best epoch on `held`, whose accuracy is returned.

    samples, held: (uint8[N, C, H, W], int64[N]). Each better state is stored as <out>.pt.
    """
    x, y = samples
    colour = x.shape[1] == 3
    batches = len(x) // options.batch
    optimiser = torch.optim.AdamW(net.parameters(), options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.lr, options.epochs * batches, pct_start=0.2
    )
    best, state, began = -1.0, net.state_dict(), time.time()
    for epoch in range(1, options.epochs + 1):
        net.train()
        order = torch.randperm(len(x), generator=generator)[: batches * options.batch]
        for rows in order.split(options.batch):
            batch = prepare(augmented(x[rows], colour, 4 if colour else 2, generator))
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                scores = net(batch)
            loss = F.cross_entropy(scores.float(), y[rows], label_smoothing=options.smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        found = accuracy(net, *held, prepare)
        print(f"epoch {epoch}: validation {found:.4f}, {time.time() - began:.0f} s", flush=True)
        if found >= best:
            best, state = found, {k: v.clone() for k, v in net.state_dict().items()}
            torch.save(state, Path(options.out).with_suffix(".pt"))
    net.load_state_dict(state)
    return best


def train(options: argparse.Namespace) -> dict[str, object]:
    """Train, choose the epoch on held-out samples, export, measure test once; returns the report."""
    began = time.time()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    data = load(options.data, "train", options.data_dir)
    every, labels = maps(data)
    kept, held = stratified_split(data.y, options.holdout / len(data), options.seed)
    if len(kept) < options.batch:
        raise EdgesnnError(
            f"{data.name}: {len(kept)} samples are left for training, a batch is {options.batch}: "
            "lower --holdout or --batch"
        )
    x, y, held_x, held_y = every[kept], labels[kept], every[held], labels[held]
    mean, std = ([0.0], [1.0]) if options.unit else mean_std(options.data, x)
    middle, spread = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def prepare(raw: Tensor) -> Tensor:
        normal = (raw.float() / 255 - middle) / spread
        return normal.contiguous(memory_format=torch.channels_last)

    net: nn.Module = NETS[options.net](x.shape[1], data.classes, x.shape[2])
    if options.state:
        net.load_state_dict(torch.load(options.state, weights_only=True))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth faster
    if options.epochs:
        best = fit(net, (x, y), (held_x, held_y), prepare, options, generator)
    else:
        best = accuracy(net, held_x, held_y, prepare)
    out = Path(options.out)
    report: dict[str, object] = {"net": options.net, "data": options.data, "validation": best}
    if options.test:
        test_x, test_y = maps(load(options.data, "test", options.data_dir))
        report["test"] = accuracy(net, test_x, test_y, prepare)
        np.savez_compressed(
            out.with_name(f"{out.stem}-test.npz"), x=test_x.numpy(), y=test_y.numpy()
        )
    report |= {
        "trained_on": len(x),
        "held_out": len(held_x),
        "epochs": options.epochs,
        "seed": options.seed,
        "seconds": round(time.time() - began),
        "parameters": sum(p.numel() for p in net.parameters()),
        "weights": sum(p.numel() for p in net.parameters() if p.dim() > 1),
        "mean": mean,
        "std": std,
        "command": " ".join(["python", *sys.argv]),
    }
    export(net, prepare(x[:1]).contiguous(), out, dynamo=options.dynamo)
    chosen = torch.randperm(len(x), generator=generator)[:1000]
    np.savez_compressed(
        out.with_name(f"{out.stem}-calibration.npz"), x=x[chosen].numpy(), y=y[chosen].numpy()
    )
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; exits with status 2 and one line for what cannot be."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("net", choices=[n for n in NETS if n != "signal"])
    parser.add_argument(
        "--data", default="mnist", help="a set's name or a file, as for edgesnn train"
    )
    parser.add_argument("--data-dir", default=None, help="its folder; else EDGESNN_DATA")
    parser.add_argument("--out", required=True, help="the ONNX file to write")
    parser.add_argument("--epochs", type=int, default=12, help="0 only measures and exports")
    parser.add_argument(
        "--state", default=None, help="start from these weights (a .pt of this script)"
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--smoothing", type=float, default=0.0, help="of the labels")
    parser.add_argument(
        "--holdout", type=int, default=5000, help="training samples kept to choose by"
    )
    parser.add_argument("--test", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--dynamo", action="store_true", help="torch's newer ONNX exporter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--unit", action="store_true", help="feed x / 255: blank pixels are 0, and cost no spikes"
    )
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 where that is safe")
    options = parser.parse_args(arguments)
    if min(options.batch, options.threads, options.holdout) < 1 or options.epochs < 0:
        parser.error("--batch, --threads and --holdout are 1 and more, --epochs 0 and more")
    if not Path(options.out).parent.is_dir():
        parser.error(f"{Path(options.out).parent} is no folder")
    if options.state and not Path(options.state).is_file():
        parser.error(f"{options.state} is no file")
    return options


def main() -> None:
    """Parse and train."""
    try:
        print(json.dumps(train(parsed()), indent=1))
    except EdgesnnError as error:
        sys.exit(f"train_ann: {error}")


if __name__ == "__main__":
    main()
