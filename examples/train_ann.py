"""Train an ordinary ReLU network (no spikes) and export it to ONNX, for `edgesnn convert`.

    python examples/train_ann.py lenet --data mnist --out lenet.onnx --epochs 12 --seed 1

Beside lenet.onnx it writes lenet-calibration.npz (raw training samples), lenet-test.npz (raw test samples with
labels) and lenet.json (accuracy, normalisation, command). Samples are normalised outside of the network, as
(x / 255 - mean) / std. The epoch is chosen on samples held out of train; test is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesnn.data import load
from edgesnn.data.dataset import stratified_split

MEAN_STD = {
    "mnist": ([0.1307], [0.3081]),
    "fashion-mnist": ([0.2860], [0.3530]),
    "cifar10-jpeg": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


def conv(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution of the same size (at stride 1) and its batch norm."""
    made = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [made, nn.BatchNorm2d(after)]


def lenet(channels: int, classes: int, size: int = 28) -> nn.Module:
    """Two 5x5 convolutions with max-pooling, two dense layers."""
    features = 32 * (size // 4) ** 2
    return nn.Sequential(
        *conv(channels, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        *conv(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


def lenet_s(channels: int, classes: int, size: int = 28) -> nn.Module:
    """About 80,000 weights: the first convolution strides, the second pools."""
    features = 32 * (size // 4) ** 2 // 2
    return nn.Sequential(
        *conv(channels, 16, 5, 2), nn.ReLU(),
        *conv(16, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(features, 90), nn.ReLU(), nn.Linear(90, classes),
    )  # fmt: skip


def vgg(channels: int, classes: int, size: int = 32) -> nn.Module:
    """Three stages of 3x3 convolutions, the first of them thin, then a global average."""
    body: list[nn.Module] = []
    for stage in ((32,), (64, 64), (112, 144)):
        for width in stage:
            body += [*conv(channels, width), nn.ReLU()]
            channels = width
        if stage != (112, 144):
            body.append(nn.MaxPool2d(2))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + skip(x)); the skip is 1x1 where the size changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(before, after, 3, stride), nn.ReLU(), *conv(after, after))
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*conv(before, after, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet(channels: int, classes: int, size: int = 32) -> nn.Module:
    """A thin stem and four residual blocks."""
    return nn.Sequential(
        *conv(channels, 16), nn.ReLU(),
        Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1),
        *conv(64, 128), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes),
    )  # fmt: skip


class Levels(nn.Module):
    """A ReLU quantised to 2^bits - 1 steps of equal height, straight-through, with a learned step."""

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.step = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            x = torch.clamp(x, 0.0, float(self.top * self.step))
            return torch.fake_quantize_per_tensor_affine(x, float(self.step), 0, 0, 255)
        scaled = torch.clamp(x / self.step, 0.0, float(self.top))
        whole = torch.floor(scaled + 0.5)
        return (scaled + (whole - scaled).detach()) * self.step


def quant3(channels: int, classes: int, size: int = 28) -> nn.Module:
    """lenet whose activations have three bits."""
    net = lenet(channels, classes, size)
    return nn.Sequential(*(Levels(3) if isinstance(m, nn.ReLU) else m for m in net))


def quant3_vgg(channels: int, classes: int, size: int = 32) -> nn.Module:
    """vgg whose activations have three bits."""
    return nn.Sequential(*(Levels(3) if isinstance(m, nn.ReLU) else m for m in vgg(channels, classes)))


def separable(channels: int, classes: int, size: int = 28) -> nn.Module:
    """Depthwise-separable convolutions with ReLU6."""
    body: list[nn.Module] = [*conv(channels, 16, 3, 2), nn.ReLU6()]
    for before, after, stride in ((16, 32, 1), (32, 48, 2), (48, 64, 1)):
        body += [*conv(before, before, 3, stride, groups=before), nn.ReLU6()]
        body += [*conv(before, after, 1), nn.ReLU6()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def signal(channels: int, classes: int, size: int = 64) -> nn.Module:
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
        hits = [net(prepare(a)).argmax(1) == b for a, b in zip(x.split(500), y.split(500), strict=True)]
    return float(torch.cat(hits).float().mean())


def export(net: nn.Module, example: Tensor, path: Path | str, *, dynamo: bool = False) -> None:
    """Write ONNX in evaluation mode; the batch may have any size. dynamo needs onnxscript."""
    net.eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(net, (example,), dynamo=True).save(str(path))
            return
        torch.onnx.export(
            net, (example,), buffer, dynamo=False, opset_version=17,
            input_names=["x"], output_names=["scores"], dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    Path(path).write_bytes(buffer.getvalue())


def maps(x: np.ndarray) -> Tensor:
    """Samples [N, H, W] or [N, H, W, C] to uint8[N, C, H, W]."""
    x = x[..., None] if x.ndim == 3 else x
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def train(arguments: argparse.Namespace) -> dict[str, object]:
    """Train, choose the epoch on held-out samples, export, measure test once."""
    began = time.time()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(arguments.seed)
    data = load(arguments.data, "train", arguments.data_dir)
    mean, std = MEAN_STD.get(arguments.data, ([0.5], [0.5]))
    middle, spread = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def prepare(raw: Tensor) -> Tensor:
        return ((raw.float() / 255 - middle) / spread).contiguous(memory_format=layout)

    layout = torch.channels_last
    kept, held = stratified_split(data.y, arguments.val_fraction, arguments.seed)
    every, labels = maps(data.x), torch.from_numpy(data.y.astype(np.int64))
    x, y, val_x, val_y = every[kept], labels[kept], every[held], labels[held]
    net = NETS[arguments.net](x.shape[1], int(labels.max()) + 1, x.shape[2])
    net = net.to(memory_format=layout)
    steps = arguments.epochs * (len(x) // arguments.batch)
    optimiser = torch.optim.AdamW(net.parameters(), arguments.lr, weight_decay=arguments.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, arguments.lr, steps, pct_start=0.2)
    colour = arguments.data.startswith("cifar")
    best, state = -1.0, net.state_dict()
    out = Path(arguments.out)
    for epoch in range(1, arguments.epochs + 1):
        net.train()
        for rows in torch.randperm(len(x), generator=generator).split(arguments.batch):
            if len(rows) < arguments.batch:
                continue
            batch = augmented(x[rows], colour, 4 if colour else 2, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                scores = net(prepare(batch))
            loss = F.cross_entropy(scores.float(), y[rows], label_smoothing=arguments.smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        found = accuracy(net, val_x, val_y, prepare)
        print(f"epoch {epoch}: validation {found:.4f}, {time.time() - began:.0f} s", flush=True)
        if found >= best:
            best, state = found, {k: v.clone() for k, v in net.state_dict().items()}
            torch.save(state, out.with_suffix(".pt"))
    net.load_state_dict(state)
    test = load(arguments.data, "test", arguments.data_dir)
    test_x, test_y = maps(test.x), torch.from_numpy(test.y.astype(np.int64))
    report = {
        "net": arguments.net,
        "data": arguments.data,
        "validation": best,
        "test": accuracy(net, test_x, test_y, prepare),
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "seconds": round(time.time() - began),
        "parameters": sum(p.numel() for p in net.parameters()),
        "weights": sum(p.numel() for p in net.parameters() if p.dim() > 1),
        "mean": mean,
        "std": std,
        "command": " ".join(sys.argv),
    }
    net = net.to(memory_format=torch.contiguous_format)
    export(net, prepare(x[:1]).contiguous(), out)
    chosen = torch.randperm(len(x), generator=generator)[:1000]
    np.savez_compressed(out.with_name(f"{out.stem}-calibration.npz"), x=x[chosen].numpy(), y=y[chosen].numpy())
    np.savez_compressed(out.with_name(f"{out.stem}-test.npz"), x=test_x.numpy(), y=test_y.numpy())
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main() -> None:
    """Parse and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("net", choices=[n for n in NETS if n != "signal"])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--val-fraction", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 where it is safe")
    parser.add_argument("--data-dir", default=None)
    print(json.dumps(train(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
