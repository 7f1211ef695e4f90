"""Networks that take events: from spike frames to an integer program that runs on in a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesnn import evaluate
from edgesnn.calibrate import calibrate
from edgesnn.checkpoint import Checkpoint, load_checkpoint, load_graph, save_checkpoint, to_graph
from edgesnn.compiler import graph as g
from edgesnn.compiler import ir
from edgesnn.compiler.bounds import prove
from edgesnn.compiler.build import compile_program
from edgesnn.compiler.esnn_file import save_program
from edgesnn.compiler.interpret import Interpreter
from edgesnn.compiler.lower import lower
from edgesnn.compiler.stream import StreamInterpreter
from edgesnn.data import load, nmnist
from edgesnn.data.augment import augmented
from edgesnn.data.events import as_steps, at_phases, later, one_stream, step_frames
from edgesnn.data.recordings import load_recording
from edgesnn.layers import Events, Output, SpikingConv, SpikingDense
from edgesnn.networks.arithmetic import RmsNorm, event_steps
from edgesnn.networks.resolve import resolve
from edgesnn.networks.spec import LayerSpec, NetworkSpec, NeuronSpec
from edgesnn.networks.spiking import SpikingNetwork
from edgesnn.networks.zoo import network_spec
from edgesnn.profiling import profile
from edgesnn.quantisation.network import integer_network
from edgesnn.runtime.session import Session
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.training.select import select_exit
from edgesnn.training.train import train

STREAM = ir.EventStream(1000, 3)
STEPS = 5


def small_net(pool: bool = True, leak: float = 0.75) -> NetworkSpec:
    layers = [
        LayerSpec("events", "events"),
        LayerSpec("or-pool", "pool", kernel=2, stride=2),
        LayerSpec("conv", "conv", out=4, kernel=3, padding=1),
        LayerSpec("dense", "dense", out=8),
        LayerSpec("output", "output", out=3),
    ]
    if not pool:
        del layers[1]
    neuron = NeuronSpec(leak=leak)
    return NetworkSpec("n", (8, 6, 2 * STEPS), 3, STEPS, tuple(layers), neuron, 0.9375)


def checkpoint_of(spec: NetworkSpec, seed: int = 0, value: float = 0.3) -> Checkpoint:
    """Random weights, strong enough to spike, with norms that have seen events."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SpikingNetwork(spec)
        for norm in net.norm.values():
            torch.nn.init.constant_(norm.weight, 1.5)
            norm.momentum = 1.0  # type: ignore[assignment]
        net.train()(torch.from_numpy(events(8, spec.input_shape)).permute(0, 3, 1, 2).float())
    names = tuple("abcdefghij"[: spec.classes])
    readout = g.ReadoutSpec("margin", value)
    return Checkpoint(spec, net.state_dict(), 1.0, readout, names, "x", {}, stream=STREAM)


def events(
    count: int, shape: tuple[int, int, int], seed: int = 0, share: float = 0.2
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((count, *shape)) < share).astype(np.uint8)


def pack(path: Path, count: int = 30, seed: int = 0) -> Path:
    """A small nmnist_small.npz: a bar of events whose place is the digit's."""
    rng, table = np.random.default_rng(seed), {}
    for split in ("train", "test"):
        labels = np.arange(count) % 10
        size = rng.integers(60, 90, count)
        offsets = np.concatenate([[0], np.cumsum(size)])
        owner = np.repeat(np.arange(count), size)
        t = rng.integers(0, 300_000, len(owner))
        t = np.concatenate([np.sort(t[owner == i]) for i in range(count)])
        table |= {
            f"x_{split}": (3 * labels[owner] + rng.integers(0, 3, len(owner))).astype(np.uint8),
            f"y_{split}": rng.integers(0, 34, len(owner)).astype(np.uint8),
            f"p_{split}": rng.integers(0, 2, len(owner)).astype(np.uint8),
            f"t_{split}": t.astype(np.uint32),
            f"off_{split}": offsets,
            f"label_{split}": labels.astype(np.uint8),
        }
    np.savez(path / nmnist.PACK, **table)
    return path


def test_a_step_covers_its_microseconds() -> None:
    t = np.array([0, 999, 1000, 1000, 4999, 5000, 0])
    x = np.array([0, 1, 2, 2, 3, 4, 5])
    zero = np.zeros(7, np.int64)
    frames = step_frames(
        x, zero, np.array([1, 0, 1, 1, 0, 0, 0]), t, np.array([0, 6, 7]), (1, 6), 1000, 5
    )
    steps = as_steps(frames)
    found = [tuple(int(v) for v in at) for at in np.argwhere(steps)]
    # (recording, step, y, x, polarity): the two equal events are one, that of 5000 us is in no step.
    assert found == [
        (0, 0, 0, 0, 1),
        (0, 0, 0, 1, 0),
        (0, 1, 0, 2, 1),
        (0, 4, 0, 3, 0),
        (1, 0, 0, 5, 0),
    ]
    assert frames.max() == 1
    with pytest.raises(EdgesnnError, match="7 events have 6 times"):
        step_frames(x, zero, zero, t[:6], np.array([0, 7]), (1, 6), 1000, 5)


def test_recordings_follow_each_other_with_rest_between() -> None:
    t, x = np.array([5, 2, 9, 0, 4]), np.array([1, 2, 0, 3, 0])
    zero = np.zeros(5, np.int64)
    signal, spans, length = one_stream(x, zero + 1, zero + 1, t, np.array([0, 3, 5]), (2, 4), 100)
    assert spans.tolist() == [[100, 110], [210, 215]]
    assert length == 315
    assert signal.tolist() == [[102, 13], [105, 11], [109, 9], [210, 15], [214, 9]]


def test_the_small_pack_as_events(tmp_path: Path) -> None:
    data = load("nmnist-events", "test", pack(tmp_path))
    assert data.stream == nmnist.STREAM
    assert (data.shape, data.dtype, data.scale) == ((34, 34, 64), "uint8", 1.0)
    recording = load_recording("nmnist-events", "test", tmp_path)
    assert len(recording.labels) == len(data)
    assert (recording.intervals[1:, 0] - recording.intervals[:-1, 1] == nmnist.GAP_US).all()
    first = recording.signal[recording.signal[:, 0] < recording.intervals[0, 1]]
    steps = as_steps(data.x[:1])[0].reshape(32, -1)
    for time, address in first - [recording.intervals[0, 0], 0]:
        assert steps[time // nmnist.STEP_US, address]
    table = dict(np.load(tmp_path / nmnist.PACK))
    np.savez(tmp_path / nmnist.PACK, **{**table, "t_test": table["t_test"].astype(float)})
    with pytest.raises(EdgesnnError, match="not microseconds"):
        load("nmnist-events", "test", tmp_path)
    with pytest.raises(EdgesnnError, match="not microseconds"):
        load_recording("nmnist-events", "test", tmp_path)
    with pytest.raises(EdgesnnError, match=r"nmnist-events: nmnist_small\.npz is not in"):
        load("nmnist-events", "test", tmp_path / "none")


def camera(path: Path, **changes: Any) -> Path:
    """A user's recording: a bar on the left (a) or on the right (b), 40 to 60 ms each, 30 ms of rest."""
    rng = np.random.default_rng(5)
    x, t, spans, labels, start = [], [], [], [], 7_000
    for i in range(20):
        length = int(rng.integers(40_000, 60_000))
        t.append(np.sort(rng.integers(start, start + length, 60)))
        x.append(rng.integers(0, 4, 60) + 6 * (i % 2))
        spans.append((start, start + length))
        labels.append(i % 2)
        start += length + 30_000
    count = 20 * 60
    table = {
        "x": np.concatenate(x),
        "y": rng.integers(0, 8, count),
        "p": rng.integers(0, 2, count),
        "t": np.concatenate(t),
        "shape": np.array([8, 10]),
        "intervals": np.array(spans),
        "labels": np.array(labels),
        "class_names": np.array(["a", "b"]),
    }
    np.savez(path, **{k: v for k, v in {**table, **changes}.items() if v is not None})
    return path


def test_a_users_camera(tmp_path: Path) -> None:
    path = camera(tmp_path / "mine.npz")
    train_set, test_set = load(str(path), "train"), load(str(path), "test")
    assert (len(train_set), len(test_set), train_set.class_names) == (16, 4, ("a", "b"))
    assert train_set.shape == (8, 10, 12)  # 60 ms are six steps
    assert vars(train_set.stream) == {"step_us": 10_000, "refractory": 6}
    assert not train_set.x[train_set.y == 0, :, 4:].any()
    recording = load_recording(str(path), "test")
    assert recording.labels.tolist() == test_set.y.tolist()
    table = np.load(path)
    for k in range(4):  # the last four intervals, each with its events
        begin, end = recording.intervals[k]
        inside = recording.signal[
            (recording.signal[:, 0] >= begin) & (recording.signal[:, 0] < end)
        ]
        steps = as_steps(test_set.x[k : k + 1])[0].reshape(6, -1)
        again = np.zeros_like(steps)
        again[(inside[:, 0] - begin) // 10_000, inside[:, 1]] = 1
        assert np.array_equal(steps, again)
        assert end - begin == np.diff(table["intervals"][16 + k])[0]
    out = tmp_path / "net.pt"
    report = train("mcu-events", str(path), out, epochs=1, batch=8, progress=False)
    assert report["timesteps"] == 6
    chosen = camera(
        tmp_path / "b.npz", is_test=np.arange(20) < 10, step_us=np.array(5000), class_names=None
    )
    data = load(str(chosen), "test")
    assert (len(data), data.shape[2], data.class_names) == (10, 24, ("0", "1"))


BAD_CAMERAS: dict[str, dict[str, Any]] = {
    "has no array shape": {"shape": None},
    "not height and width": {"shape": np.array([8, 0])},
    "outside 0...3": {"shape": np.array([8, 4])},
    "not microseconds": {"t": np.zeros(1200)},
    "1200 events have 1199 times": {"t": np.arange(1199)},
    "earlier than the one before": {"t": np.arange(1200)[::-1].copy()},
    "give a larger step_us": {"step_us": np.array(100)},
    "step_us is 0": {"step_us": np.array(0)},
    "label 1, outside 0...0": {"class_names": np.array(["a"])},
    "is_test leaves no interval": {"is_test": np.ones(20, bool)},
    "is empty": {"intervals": np.zeros((20, 2), int)},
}


@pytest.mark.parametrize("message", BAD_CAMERAS)
def test_a_users_camera_is_checked(message: str, tmp_path: Path) -> None:
    path = camera(tmp_path / "mine.npz", **BAD_CAMERAS[message])
    for read in (load, load_recording):
        with pytest.raises(EdgesnnError, match=message) as refusal:
            read(str(path), "train")
        assert "\n" not in str(refusal.value)


def test_affine_augmentation_keeps_spikes_and_steps_together() -> None:
    x = torch.zeros(40, 6, 20, 20, dtype=torch.uint8)
    x[:, :, 6:14, 6:14] = 1
    y = augmented(x, "affine", 1, torch.Generator().manual_seed(0))
    assert y.dtype == x.dtype
    assert set(y.unique().tolist()) == {0, 1}
    assert torch.equal(y[:, :1].expand_as(y), y)  # one map for all channels of a sample
    share = y.float().mean() / x.float().mean()
    assert 0.8 < share < 1.2
    assert not torch.equal(y[0], y[1])
    filled = augmented(x + 7, "affine", 1, torch.Generator().manual_seed(0), 7)
    assert torch.equal(filled, y + 7)
    with pytest.raises(UsageError, match="cannot be turned"):
        augmented(x[:, :, :1], "affine", 1, torch.Generator())


def test_later_events_are_those_of_another_phase() -> None:
    x = np.zeros((200, 6, 6, 8), np.uint8)
    x[..., 2:4] = 1  # all events in step 1 of 0...3
    y = later(x, np.random.default_rng(0))
    assert y.dtype == x.dtype
    assert (y[..., 2:4] + y[..., 4:6] == 1).all()  # each once, now or a step later
    assert not y[..., :2].any()
    assert not y[..., 6:].any()
    share = y[..., 4:6].mean((1, 2, 3))
    assert share.min() < 0.05
    assert share.max() > 0.95
    x[..., 4:6] = 1
    assert int(later(x, np.random.default_rng(0)).max()) == 1
    again, labels = at_phases(x, np.arange(200), 0)
    assert np.array_equal(again[:200], x)
    assert np.array_equal(labels, np.tile(np.arange(200), 4))


def test_rms_norm_keeps_silence_silent() -> None:
    norm = RmsNorm(3, 0.5)
    x = torch.randn(50, 3, 4, 4)
    y = norm(x)
    assert torch.allclose(y.square().mean((0, 2, 3)).sqrt(), torch.tensor(0.5), atol=1e-3)
    assert not norm(torch.zeros(2, 3, 4, 4)).any()
    plain = torch.nn.BatchNorm2d(3)
    assert set(norm.state_dict()) == set(plain.state_dict())
    plain.load_state_dict({**norm.state_dict(), "bias": torch.ones(3)})
    norm.load_state_dict(plain.state_dict())
    assert torch.allclose(norm.eval()(x), plain.eval()(x), atol=1e-5)


def test_no_events_no_spikes() -> None:
    checkpoint = checkpoint_of(small_net())
    net = integer_network(to_graph(checkpoint))
    silent = net.evaluate_counts(np.zeros((2, 8, 6, 2 * STEPS), np.uint8))
    assert not silent.events.any()
    assert not silent.membranes.any()
    assert net.evaluate_counts(events(4, (8, 6, 2 * STEPS))).events[:, -2].sum() > 0


@pytest.mark.parametrize("seed", range(4))
def test_integers_are_the_interpreters(seed: int, tmp_path: Path) -> None:
    """Training's integer form, the file and the interpreter; also after parameters have changed."""
    spec = small_net(pool=seed % 2 == 0, leak=(0.5, 0.75, 0.875, 0.3)[seed])
    checkpoint = checkpoint_of(spec, seed, (0.05, 0.3, 1.0, 4.0)[seed])
    save_checkpoint(checkpoint, tmp_path / "net.pt")
    graph = load_graph(tmp_path / "net.pt")
    assert graph.input == g.EventInput((8, 6, 2))
    assert vars(graph.stream) == vars(STREAM)
    net = integer_network(graph)
    program = net.program()
    assert program.digest() == lower(graph).digest()
    assert (program.stream, program.input.shape) == (graph.stream, (8, 6, 2))
    x = events(6, spec.input_shape, seed, 0.3)
    counts = net.evaluate_counts(x)
    assert counts.events[:, -2].any()
    with Interpreter(program) as engine:
        for i, sample in enumerate(as_steps(x)):
            found = engine.infer(sample)
            assert (found.label, found.step, found.exited) == (
                counts.labels[i],
                counts.steps[i],
                counts.exited[i],
            )
            for name in ("membranes", "events", "sops"):
                assert np.array_equal(getattr(found, name), getattr(counts, name)[i])


def test_float_and_integers_answer_alike() -> None:
    checkpoint = checkpoint_of(small_net())
    x = events(40, checkpoint.network.input_shape, 3)
    net = SpikingNetwork(checkpoint.network).eval()
    net.load_state_dict(checkpoint.state)
    with torch.no_grad():
        act = net(torch.from_numpy(x).permute(0, 3, 1, 2).float())
    assert torch.equal(
        act.encoder, event_steps(torch.from_numpy(x).permute(0, 3, 1, 2).float(), STEPS)
    )
    whole = integer_network(to_graph(checkpoint))
    exact = whole.membranes(x) * float(whole(x[:1]).scale)
    assert np.abs(exact - act.membranes.numpy()).mean() < 0.1 * np.abs(exact).mean() + 1e-3


def test_membranes_of_a_stream_fit_forever() -> None:
    """Bounds of a stream hold for any number of steps; the int16 fit aims at those."""
    spec = small_net(leak=0.96875)
    graph = to_graph(checkpoint_of(spec))
    endless, finite = prove(lower(graph)), prove(lower(replace(graph, stream=None)))
    for name in ("conv", "dense"):
        most, less = endless.nodes[name].hi, finite.nodes[name].hi
        assert most is not None and less is not None
        assert most.max() > less.max()
    assert endless.nodes["conv"].width == "int16"


BAD_STREAMS: dict[str, tuple[Any, ...]] = {
    "of 1 forgets nothing": (0, {"leak": 1.0}),
    "one spike per inference": (1, {"reset": "amos"}),
    "output: a leak of 1": (3, {"leak": 1.0}),
}


@pytest.mark.parametrize("word", BAD_STREAMS)
def test_graphs_without_an_end_are_checked(word: str) -> None:
    graph = to_graph(checkpoint_of(small_net(pool=False)))
    at, change = BAD_STREAMS[word]
    at = min(at, len(graph.layers) - 1)
    layers = list(graph.layers)
    layers[at] = replace(layers[at], **change)
    with pytest.raises(EdgesnnError, match=word):
        lower(replace(graph, layers=tuple(layers)))
    source = g.SampleInput((8, 6, 2))
    with pytest.raises(EdgesnnError, match="needs a network that takes events"):
        lower(replace(graph, input=source))
    with pytest.raises(EdgesnnError, match="only samples do"):
        lower(replace(graph, input=source, stream=None))


def test_the_exit_of_a_stream_has_to_come() -> None:
    """Two of three samples never reach a margin of 2: right as samples, without an answer in a stream."""
    membranes = np.zeros((2, 3, 2))
    membranes[:, 0, 0], membranes[1, 1:, 0] = 3.0, 1.0
    y = np.zeros(3, np.int64)
    assert select_exit(membranes, y, "margin", must_exit=False).accuracy == 1.0
    chosen = select_exit(membranes, y, "margin", must_exit=True)
    assert (chosen.accuracy, chosen.value) == (1.0, 1.0)
    # A sample of two copies is two of six: what is worth waiting for is a whole one.
    slow = np.zeros((9, 6, 2))
    slow[0, :5, 0], slow[0, 5, 0] = 1.0, -1.0
    slow[8, :, 0] = 3.0
    for copies, step in ((1, 1), (2, 1)):
        assert select_exit(slow, np.zeros(6, np.int64), "margin", copies=copies).mean_steps == step
    slow[0, 4, 0] = -1.0
    for copies, step in ((1, 9), (2, 1)):
        assert select_exit(slow, np.zeros(6, np.int64), "margin", copies=copies).mean_steps == step
    membranes[1, 1:, 0] = 0.0
    assert select_exit(membranes, y, "margin", must_exit=True).accuracy == pytest.approx(1 / 3)


class Own(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.events = Events(timesteps=STEPS)
        self.conv = SpikingConv(2, 4, 3, padding=1, neuron=NeuronSpec(leak=0.75))
        self.dense = SpikingDense(4 * 8 * 6, 8, neuron=NeuronSpec(leak=0.75))
        self.out = Output(8, 3, leak=0.9375)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.dense(self.conv(self.events(x))))  # type: ignore[no-any-return]


def test_a_module_of_ones_own_takes_events() -> None:
    module = Own()
    found = resolve(module, (8, 6, 2 * STEPS), 3, STEPS)
    assert [layer.kind for layer in found.spec.layers] == ["events", "conv", "dense", "output"]
    assert found.state is not None
    net = SpikingNetwork(found.spec).eval()
    net.load_state_dict(found.state)
    x = torch.from_numpy(events(3, (8, 6, 2 * STEPS))).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        assert torch.allclose(net(x).membranes, module.eval()(x), atol=1e-5)


def test_training_calibration_and_the_stream(tmp_path: Path) -> None:
    """A short run: T is the data's, integers are counted, the checkpoint knows its stream."""
    out = tmp_path / "net.pt"
    folder = pack(tmp_path)
    report = train(
        "mcu-events", "nmnist-events", out, data_dir=folder, epochs=1, batch=10, progress=False
    )
    assert report["timesteps"] == nmnist.STEPS
    assert report["exit"] == "margin"
    checkpoint = load_checkpoint(out)
    assert vars(checkpoint.stream) == vars(nmnist.STREAM)
    assert not checkpoint.state["linear.output.bias"].any()
    assert report["integer"]["mean_timesteps"] <= nmnist.STEPS
    calibrated = calibrate(out, "nmnist-events", data_dir=folder)
    assert calibrated["held_out"]
    program = lower(to_graph(load_checkpoint(out)))
    save_program(program, tmp_path / "net.esnn")
    whole = calibrate(tmp_path / "net.esnn", "nmnist-events", data_dir=folder, samples=2)
    assert (whole["arithmetic"], whole["samples"]) == ("integers", 2)


REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mcu-mlp takes samples: choose a net that takes events": ("mcu-mlp", "nmnist-events", {}),
    "choose data of events, such as nmnist-events": ("mcu-events", "digits", {}),
    "32 steps of events a sample": ("mcu-events", "nmnist-events", {"timesteps": 4}),
    "leave the encoder out": ("mcu-events", "nmnist-events", {"coding": "direct"}),
    "lif with a leak below 1": ("mcu-events", "nmnist-events", {"neuron": "if"}),
    "no last step for a rate exit": ("mcu-events", "nmnist-events", {"exit": "rate"}),
    "choose an output-leak below 1": ("mcu-events", "nmnist-events", {"output_leak": 1.0}),
    "cannot be trained away": ("mcu-events", "nmnist-events", {"early_penalty": 0.1}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused_before_training(message: str, tmp_path: Path) -> None:
    net, data, options = REFUSED[message]
    with pytest.raises(UsageError, match=message) as refusal:
        train(net, data, tmp_path / "net.pt", data_dir=pack(tmp_path), progress=False, **options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "net.pt").exists()


def test_channels_have_to_be_whole_steps() -> None:
    with pytest.raises(UsageError, match="3 channels are not 2 steps"):
        network_spec("mcu-events", (8, 8, 3), 3, 2)


def test_a_stream_from_rest_answers_as_the_sample_does() -> None:
    """The same events with times instead of steps: the first answer is that of the sample."""
    answered = 0
    for seed in range(2):
        program = lower(to_graph(checkpoint_of(small_net(), seed, 0.2)))
        sample = as_steps(events(1, (8, 6, 2 * STEPS), seed))[0]
        step, *_ = np.nonzero(sample)
        address = np.flatnonzero(sample) % (8 * 6 * 2)
        times = step * STREAM.step_us + np.random.default_rng(seed).integers(
            0, STREAM.step_us, len(step)
        )
        order = np.argsort(times, kind="stable")
        with StreamInterpreter(program) as engine, Interpreter(program) as whole:
            engine.start_stream()
            found = engine.push(np.stack([times, address], axis=1)[order])
            found += engine.advance(STEPS * STREAM.step_us)
            expected = whole.infer(sample)
        assert bool(found) == expected.exited
        if found:
            answered += 1
            assert found[0].time == expected.step * STREAM.step_us
            assert found[0].decision.label == expected.label
            assert np.array_equal(found[0].decision.membranes, expected.membranes)
    assert answered


def test_without_an_exit_there_is_no_answer(tmp_path: Path) -> None:
    """A threshold that is never reached: the leader at the end is right as a class and wrong as an answer."""
    program = lower(to_graph(checkpoint_of(small_net(), 0, 0.2)))
    program = replace(program, readout=ir.Margin(30_000))
    x = as_steps(events(3, (8, 6, 2 * STEPS), 0))
    y = np.array([Interpreter(program).infer(sample).label for sample in x])
    bundle = compile_program(program, "cpu", out=tmp_path / "bundle")
    with Session(bundle) as session:
        found = evaluate.run(session, x, y)
        assert (found["accuracy"], found["no_output_spike"]) == (0.0, 3)
        assert profile(session, x, "events", y=y, sweep_samples=0)["accuracy"] == 0.0
