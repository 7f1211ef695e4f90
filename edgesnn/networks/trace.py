"""A torch module made of `edgesnn.layers` as a network description and weights, and the way back."""

from __future__ import annotations

import operator
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgesnn.checkpoint import state_shapes
from edgesnn.layers.base import Layer
from edgesnn.layers.output import Output
from edgesnn.networks.spec import INPUT, USED, LayerSpec, NetworkSpec, NeuronSpec, Pair, Shape
from edgesnn.networks.zoo import check_sizes
from edgesnn.targets.errors import UsageError

_ADDITIONS = (operator.add, torch.add)
_LEAK = "output_leak_logit"


class _Tracer(fx.Tracer):
    """Records the calls in `forward`: our layers as a whole, everything else as it is."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Layer) or super().is_leaf_module(m, module_qualified_name)


def from_module(
    module: nn.Module,
    input_shape: Shape,
    classes: int,
    timesteps: int,
    name: str | None = None,
) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """(description, state as `SpikingNetwork` names it) of a module whose forward calls our layers.

    forward takes samples float[N, C, H, W] and returns the membranes of its one `Output`. Spikes may be
    added (`a + b`, `torch.add`), nested modules and `nn.Identity` may be used freely, pools more than
    once. input_shape: (height, width, channels). name: the class's if None. UsageError, in one line, for
    anything else, naming the operation and where it stands. The module itself is not changed.
    """
    check_sizes(classes, timesteps)
    title = name or re.sub(r"[^A-Za-z0-9]+", "-", type(module).__name__).strip("-")[:64] or "net"
    calls, reads = _calls(module, title)
    layers = {path: module.get_submodule(path) for path in dict.fromkeys(calls.values())}
    rules = [x.rule for x in layers.values() if isinstance(x, Layer) and x.rule is not None]
    neuron = rules[0] if rules else NeuronSpec()
    norms = {x.normed for x in layers.values() if isinstance(x, Layer) and x.normed is not None}
    if len(norms) > 1:
        raise UsageError(f"{title}: either all layers have a batch norm, or none has")
    signal = input_shape[0] == 1
    specs = []
    for at, sources in reads.items():
        layer = layers[calls[at]] if at in calls else None
        assert layer is None or isinstance(layer, Layer)
        if layer is None:
            specs.append(LayerSpec("merge", at, sources=sources))
            continue
        if layer.timesteps not in (None, timesteps):
            raise UsageError(f"layer {at}: made for {layer.timesteps} timesteps, not {timesteps}")
        specs.append(_layer_spec(at, layer, sources, neuron, signal))
    ends = [x for x in layers.values() if isinstance(x, Output)]
    if len(ends) != 1:
        raise UsageError(f"{title}: forward calls {len(ends)} Output layers instead of one")
    spec = NetworkSpec(
        title,
        input_shape,
        classes,
        timesteps,
        tuple(specs),
        neuron,
        ends[0].leak,
        ends[0].learn_leak,
        norms != {False},
    )
    try:
        spec = NetworkSpec.from_dict(spec.to_dict())
    except ValueError as error:
        raise UsageError(f"{title}: {error}") from None
    spec.shapes()
    state = _state(module, {path: at for at, path in calls.items()})
    _check_sizes(spec, state)
    return spec, state


def to_module(state: Mapping[str, Tensor], module: nn.Module) -> None:
    """Copy the state of a net that `from_module` described (its checkpoint's) back into the module.

    UsageError if the module is not built as that one was; nothing is copied then.
    """
    # Layers that forward never calls have no weights in a network.
    known = {key.split(".")[1] for key in state if "." in key}
    names = {path: name for path, name in layer_names(module).items() if name in known}
    parts = {key: tensor.shape for key, tensor in _state(module, names).items()}
    shapes = {key: tensor.shape for key, tensor in state.items()}
    if parts != shapes:
        odd = sorted(key for key in {*parts, *shapes} if parts.get(key) != shapes.get(key))
        raise UsageError(f"{type(module).__name__} is not the module of these weights: {odd[0]}")
    for path, name in names.items():
        layer = module.get_submodule(path)
        layer.load_state_dict({key: state[_state_name(name, key)] for key in layer.state_dict()})


def layer_names(module: nn.Module) -> dict[str, str]:
    """Path of each of our layers inside the module -> its name in the network: stem.0 is stem_0."""
    found: dict[str, str] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Layer):
            found[path] = _free(path.replace(".", "_"), found.values())
    return found


def _free(name: str, taken: Any) -> str:
    """`name`, or with a number what is not taken and can name a layer of a SpikingNetwork."""
    name = name if name.isidentifier() else f"layer{name}"
    tried, n = name, 2
    while tried in taken or tried == INPUT or hasattr(nn.ModuleDict, tried):
        tried, n = f"{name}_{n}", n + 1
    return tried


def _calls(module: nn.Module, title: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """In the order of forward: layer name -> module path (merges have none), and -> what it reads."""
    tracer = _Tracer()
    try:
        nodes = list(tracer.trace(module).nodes)
    except UsageError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(
            f"{title}: forward cannot be followed{_raised_at(error)}: {_line(error)}"
        ) from None
    names = layer_names(module)
    calls: dict[str, str] = {}
    reads: dict[str, tuple[str, ...]] = {}
    at: dict[fx.Node, str] = {}  # the layer whose spikes a node is
    for node in nodes:
        if node.op == "placeholder":
            if INPUT in at.values():
                raise UsageError(f"{title}: forward takes {node.target!r} besides the samples")
            at[node] = INPUT
        elif node.op == "output":
            last = at.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            if last is None or last not in calls or last != list(reads)[-1]:
                raise UsageError(f"{title}: forward returns its Output layer's membranes, no more")
        elif _is_addition(node, title):
            users = list(node.users)
            if len(users) == 1 and _is_addition(users[0], title):
                continue  # part of a longer sum
            at[node] = _free("merge", {*names.values(), *reads})
            reads[at[node]] = tuple(at[x] for x in _terms(node, title))
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
            if not isinstance(layer, Layer | nn.Identity):
                raise _refused(title, node, f"the layer {node.target!r}, a {type(layer).__name__},")
            if not isinstance(source, fx.Node):
                raise UsageError(f"{title}: {node.target} takes one input{_stands(node)}")
            if isinstance(layer, nn.Identity):
                at[node] = at[source]
                continue
            path = str(node.target)
            name = names[path]
            if path in calls.values():
                if layer.out or layer.timesteps is not None:
                    raise UsageError(
                        f"{title}: {path} is called twice{_stands(node)}; shared weights cannot be "
                        "compiled, make a second layer"
                    )
                name = _free(name, {*names.values(), *reads})
            calls[name], reads[name], at[node] = path, (at[source],), name
        else:
            what = getattr(node.target, "__name__", str(node.target))
            raise _refused(title, node, {"get_attr": f"the tensor {what!r}"}.get(node.op, what))
    if not calls:
        raise UsageError(f"{title}: forward calls no layer of edgesnn.layers")
    return calls, reads


def _is_addition(node: fx.Node, title: str) -> bool:
    """Whether a node is a sum of two tensors; UsageError for a sum of anything else."""
    plain = node.op == "call_function" and node.target in _ADDITIONS
    if not plain and (node.op, node.target) != ("call_method", "add"):
        return False
    if len(node.args) != 2 or node.kwargs or not all(isinstance(x, fx.Node) for x in node.args):
        raise _refused(title, node, "an addition of something other than two layers' spikes")
    return True


def _terms(node: fx.Node, title: str) -> list[fx.Node]:
    """The spikes that a sum adds, inner sums that nothing else reads taken apart."""
    out: list[fx.Node] = []
    for term in node.args:
        assert isinstance(term, fx.Node)
        inner = _is_addition(term, title) and len(term.users) == 1
        out += _terms(term, title) if inner else [term]
    return out


def _layer_spec(
    name: str, layer: Layer, sources: tuple[str, ...], neuron: NeuronSpec, signal: bool
) -> LayerSpec:
    used = USED[layer.kind]
    return LayerSpec(
        layer.kind,
        name,
        out=layer.out,
        kernel=_extent(name, "kernel", layer.kernel, signal, 1),
        stride=_extent(name, "stride", layer.stride, signal, 1),
        padding=_extent(name, "padding", layer.padding, signal, 0),
        pool=_extent(name, "pool", layer.pool, signal, 1),
        sources=() if sources == (INPUT,) else sources,
        neuron=layer.rule if "neuron" in used and layer.rule != neuron else None,
    )


def _extent(name: str, what: str, extent: Pair, signal: bool, neutral: int) -> int:
    """A window's size: along the width for a signal, else of a square."""
    if signal and extent[0] != neutral:
        wanted = f"({neutral}, n)"
        raise UsageError(f"layer {name}: samples of height 1 need {what} {wanted}, not {extent}")
    if not signal and extent[0] != extent[1]:
        raise UsageError(f"layer {name}: {what} {extent} is not square; only signals have 1 x n")
    return extent[1]


def _state(module: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of the layers at these paths, as `SpikingNetwork` names them; copies on the CPU."""
    return {
        _state_name(name, key): tensor.detach().cpu().clone()
        for path, name in names.items()
        for key, tensor in module.get_submodule(path).state_dict().items()
    }


def _state_name(layer: str, key: str) -> str:
    """norm.weight of layer conv is norm.conv.weight; the output's leaks are the net's."""
    if key == _LEAK:
        return key
    part, rest = key.split(".", 1)
    return f"{part}.{layer}.{rest}"


def _check_sizes(spec: NetworkSpec, state: Mapping[str, Tensor]) -> None:
    """UsageError for a layer that was made for another source than it reads."""
    for key, shape in state_shapes(spec).items():
        found = tuple(state[key].shape)
        if found != shape:
            inputs = "in_channels" if len(shape) == 4 else "in_features"
            raise UsageError(
                f"layer {key.split('.')[1]}: {inputs} {found[1]}, but what it reads has {shape[1]}"
            )


def _refused(title: str, node: fx.Node, what: str) -> UsageError:
    return UsageError(
        f"{title}: {what}{_stands(node)} cannot be compiled; use layers of edgesnn.layers and "
        "additions of their spikes"
    )


def _stands(node: fx.Node) -> str:
    """Where in the user's code a node was made: " (file.py, line 12)"."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    theirs = [(file, line) for file, line in found if not _ours(file)]
    return f" ({Path(theirs[-1][0]).name}, line {theirs[-1][1]})" if theirs else ""


def _raised_at(error: Exception) -> str:
    theirs = [x for x in traceback.extract_tb(error.__traceback__) if not _ours(x.filename)]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def _ours(file: str) -> bool:
    """Whether a file is torch's or this package's."""
    places = (Path(torch.__file__).parent, Path(__file__).parents[1])
    return any(Path(file).is_relative_to(place) for place in places)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
