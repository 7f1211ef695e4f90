"""What `net` stands for: a name, a torch module, or "file.py:factory" of the user's own."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from edgesnn.networks.kind import Recipe
from edgesnn.networks.spec import NetworkSpec, NeuronSpec, Shape, neuron_spec
from edgesnn.networks.trace import from_module
from edgesnn.networks.zoo import network_kind, network_spec
from edgesnn.targets.errors import EdgesnnError, UsageError

# Modules start with the weights they have: the encoder's bias is the module's own.
OWN = Recipe(epochs=20, rate_penalty=0.02, early_penalty=0.1, encoder_bias=0.0)


@dataclass(frozen=True)
class Resolved:
    """A net to train. state: initial weights as `SpikingNetwork` names them, None for fresh ones."""

    name: str
    spec: NetworkSpec
    state: dict[str, Tensor] | None
    recipe: Recipe


def recipe_of(net: str | nn.Module) -> Recipe:
    """The training defaults of a net, known before its data; errors for a name or file that is not there."""
    if isinstance(net, nn.Module):
        return OWN
    if _split(net) is not None:
        return OWN
    return network_kind(net).recipe


def label(net: str | nn.Module) -> str:
    """A net as a word: a named one's name, a module's class, a factory's name."""
    if isinstance(net, nn.Module):
        return type(net).__name__
    split = _split(net)
    return net if split is None else split[1]


def resolve(
    net: str | nn.Module,
    input_shape: Shape,
    classes: int,
    timesteps: int,
    *,
    neuron: str | NeuronSpec | None = None,
    encoder: str | None = None,
    output_leak: float | None = None,
    learn_output_leak: bool | None = None,
    seed: int = 0,
) -> Resolved:
    """The network behind `net` for samples of `input_shape` (height, width, channels).

    A name takes the keyword options (None: lif, latency, 0.5, False). A module, or the one that
    factory(input_shape, classes, timesteps) of "file.py:factory" returns, decides these itself: other
    values are refused. seed: of the random weights that a factory makes. EdgesnnError for a file that
    cannot be used, UsageError for anything else that is wrong.
    """
    options = {"output_leak": output_leak, "learn_output_leak": learn_output_leak}
    kind = "lif" if neuron is None else neuron
    form = "latency" if encoder is None else encoder
    given = {key: value for key, value in options.items() if value is not None}
    split = None if isinstance(net, nn.Module) else _split(net)
    if not isinstance(net, nn.Module) and split is None:
        spec = network_spec(net, input_shape, classes, timesteps, kind, encoder=form, **given)  # type: ignore[arg-type]
        return Resolved(spec.name, spec, None, network_kind(net).recipe)
    defaults = {"output_leak": 0.5, "learn_output_leak": False}
    changed = [key for key, value in given.items() if value != defaults[key]]
    changed += ["neuron"] if neuron_spec(kind) != NeuronSpec() else []
    changed += ["encoder"] if form != "latency" else []
    if changed:
        option = changed[0].replace("_", "-")
        raise UsageError(f"{label(net)} is a module of your own: set its {option} in its layers")
    if isinstance(net, nn.Module):
        module = net
    else:
        assert split is not None
        module = _made(net, *split, (input_shape, classes, timesteps), seed)
    spec, state = from_module(module, input_shape, classes, timesteps)
    return Resolved(spec.name, spec, state, OWN)


def _split(net: str) -> tuple[Path, str] | None:
    """(file, factory) of "file.py:factory"; None for a name."""
    if not isinstance(net, str):
        raise UsageError(f"net {net!r} is neither a name nor a torch.nn.Module")
    if net.endswith(".py"):
        raise UsageError(f"{net}: say which function makes the module, {net}:name")
    file, colon, factory = net.rpartition(":")
    if not colon or not file.endswith(".py"):
        return None
    path = Path(file).expanduser()
    if not path.is_file():
        raise EdgesnnError(f"{file}: no such file")
    return path, factory


def _made(
    net: str, path: Path, factory: str, arguments: tuple[Shape, int, int], seed: int
) -> nn.Module:
    """The module that the factory of a file returns, with random weights of `seed`."""
    make = getattr(_imported(path), factory, None)
    if not callable(make):
        raise UsageError(f"{path} has no function {factory!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = make(*arguments)
        except (Exception, SystemExit) as error:
            raise EdgesnnError(f"{net} raised {_what(error, path)}") from None
    if not isinstance(module, nn.Module):
        raise UsageError(f"{net} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


def _imported(path: Path) -> ModuleType:
    """The file as a module of its own name; it may import files beside it."""
    spec = importlib.util.spec_from_file_location(f"edgesnn_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise EdgesnnError(f"cannot import {path}: {_what(error, path)}") from None
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _what(error: BaseException, path: Path) -> str:
    """An error of the user's code in one line, with the line of their file that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [x.lineno for x in frames if Path(x.filename).resolve() == path.resolve()]
    message = (str(error).splitlines() or [""])[0]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {message}{where}"
