"""Train a residual net of one's own on 8x8 digits, lower it to integers, ask the reference interpreter.

    python examples/own_module.py [folder for the checkpoint]

The command line takes the same net: edgesnn train --net examples/own_module.py:make --data digits
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor, nn

from edgesnn.layers import AvgPool, EncodeConv, Output, SpikingConv


class Block(nn.Module):
    """Two spiking convolutions, their spikes added to those of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = SpikingConv(channels, channels, 3, padding=1)
        self.second = SpikingConv(channels, channels, 3, padding=1)

    def forward(self, spikes: Tensor) -> Tensor:
        return spikes + self.second(self.first(spikes))


class ResidualNet(nn.Module):
    """float[N, C, H, W] samples to float[T, N, classes] output membranes."""

    def __init__(self, channels: int, height: int, width: int, classes: int, steps: int) -> None:
        super().__init__()
        self.encoder = EncodeConv(channels, 16, 3, padding=1, timesteps=steps)
        self.body = nn.Sequential(Block(16), AvgPool(2))
        self.down = SpikingConv(16, 32, 3, stride=2, padding=1)
        height, width = (height // 2 + 1) // 2, (width // 2 + 1) // 2
        self.output = Output(32 * height * width, classes)

    def forward(self, samples: Tensor) -> Tensor:
        return self.output(self.down(self.body(self.encoder(samples))))


def make(input_shape: tuple[int, int, int], classes: int, timesteps: int) -> nn.Module:
    """The net for samples of (height, width, channels): what `file.py:make` names."""
    height, width, channels = input_shape
    return ResidualNet(channels, height, width, classes, timesteps)


def main(folder: Path) -> None:
    from edgesnn import api
    from edgesnn.compiler.interpret import Interpreter
    from edgesnn.data import load

    path = folder / "own.pt"
    net = make((8, 8, 1), 10, 4)
    report = api.train(net, "digits", path, epochs=5, batch=50, progress=False)
    print(f"{report['accuracy']:.1%} right after {report['mean_timesteps']:.2f} of 4 steps")

    # From here on only the checkpoint is needed, not the classes above.
    program = api.load_program(path)
    digits = load("digits", "test")
    with Interpreter(program) as engine:
        answers = [engine.infer(sample) for sample in digits.x[:50]]
    right = sum(answer.label == y for answer, y in zip(answers, digits.y[:50], strict=True))
    print(f"in integers: {right} of 50, {program.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
