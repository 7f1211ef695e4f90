"""The commands as functions; the command line only parses and prints.

Nothing heavy is imported here: each function imports torch or tvm when it is called and needs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesnn.targets.board import list_boards
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.target import find_target

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from edgesnn.compiler.ir import Program
    from edgesnn.compiler.package.write import Package
    from edgesnn.conversion import Conversion
    from edgesnn.runtime.bundle import Bundle

Say = Callable[[str], None]


def train(
    net: str | nn.Module, data: str, out: Path | str | None = None, **options: Any
) -> dict[str, Any]:
    """Train a network and write its checkpoint; the report of `edgesnn.training.train.train`.

    net: a name, "file.py:factory" or a torch module. out: default ./<net>-<data>.pt. options: those of
    `edgesnn.training.train.train`.
    """
    from edgesnn.training.train import train as run

    report = run(net, data, checkpoint_path(net, data, out), **options)
    # The same form as in `run`: steps are counted from 1.
    steps = report["timesteps_histogram"]
    report["timesteps_histogram"] = {str(t): n for t, n in enumerate(steps, start=1)}
    return report


def convert(
    model: Path | str | bytes | nn.Module,
    calibration: Path | str | np.ndarray,
    out: Path | str | None = None,
    **options: Any,
) -> Conversion:
    """Convert an ordinary trained network to an integer program of canonic signed spikes (docs/CONVERSION.md).

    model: an ONNX file or a torch module. calibration: an .npz with `x` (and `y`), or the array x. out: a .pt
    to write. options: those of `edgesnn.conversion.convert`.
    """
    from edgesnn.conversion import convert as run

    place = Path(out).expanduser() if out is not None else None
    if place is not None:
        _check_converted(place)
    found = run(model, calibration, **options)
    if place is not None:
        found.save(place)
    return found


def _check_converted(out: Path) -> None:
    """Refuse, before the work is done, an output that is no .pt or holds anything but a converted network."""
    if out.suffix != ".pt":
        raise UsageError(f"{out}: a converted network is a .pt file; name it so")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; choose a file name for --out")
    if out.exists() and not is_converted(out):  # such as the weights that the ONNX file was made of
        raise EdgesnnError(
            f"{out} exists and is not a converted network; move it away or choose another --out"
        )


def calibrate(
    model: Path | str, data: str, out: Path | str | None = None, **options: Any
) -> dict[str, Any]:
    """Choose the exit's value of a checkpoint or program anew; the report of `edgesnn.calibrate`.

    out: default `model` itself, but a zoo model stays as it is. options: those of
    `edgesnn.calibrate.calibrate`.
    """
    from edgesnn.calibrate import calibrate as run

    path = model_file(model)
    if out is None and path != Path(model).expanduser():
        raise UsageError(f"{model} comes with edgesnn and stays as it is; name an --out")
    if path.suffix == ".pt" and is_converted(path):
        raise UsageError(
            f"{path} is a converted network; `edgesnn convert --confidence` chooses earlier stops"
        )
    return run(path, data, out=None if out is None else Path(out).expanduser(), **options)


def checkpoint_path(net: str | nn.Module, data: str, out: Path | str | None) -> Path:
    """Where `train` writes: `out`, else ./<net>-<data>.pt."""
    from edgesnn.networks.resolve import label

    return Path(out) if out is not None else Path(f"{label(net)}-{Path(data).stem}.pt")


def check_report(folder: Path | str) -> None:
    """Refuse a report's folder that holds anything else; asked before the work is done."""
    from edgesnn.reports.report import check_folder

    check_folder(Path(folder))


def model_file(model: Path | str) -> Path:
    """Where a model lies: a path, or the zoo's checkpoint for "zoo:<name>"."""
    from edgesnn.zoo.card import PREFIX, model_path

    if isinstance(model, str) and model.startswith(PREFIX):
        return model_path(model)
    return Path(model).expanduser()


def load_program(model: Path | str, weights: str | None = None) -> Program:
    """The integer program of a .pt checkpoint or zoo:<name> (lowered here), an .esnn file or a bundle.

    weights: the weight format to lower to, by default the one the checkpoint was trained for. An .esnn
    file or a bundle has its format, and needs no torch.
    """
    path = model_file(model)
    if weights is not None and (path.is_dir() or path.suffix == ".esnn"):
        raise UsageError(f"{path} is a program with its weights; --weights is for .pt checkpoints")
    if path.is_dir():
        from edgesnn.compiler.esnn_file import load_program as read
        from edgesnn.runtime.bundle import Bundle

        return read(Bundle.open(path).program_path)
    if not path.exists():
        raise EdgesnnError(
            f"there is no model at {path}; make one with `edgesnn train` or `convert`"
        )
    if path.suffix == ".esnn":
        from edgesnn.compiler.esnn_file import load_program as read

        return read(path)
    if path.suffix == ".pt" and is_converted(path):
        from edgesnn.conversion.archive import load_converted

        if weights is not None:
            raise UsageError(
                f"{path} has its weights; choose them with `edgesnn convert --weights`"
            )
        return load_converted(path)[0]
    if path.suffix == ".pt":
        from edgesnn.checkpoint import load_checkpoint, load_graph
        from edgesnn.compiler.lower import lower

        checkpoint = load_checkpoint(path)
        program = lower(load_graph(path), weights=weights or checkpoint.weights)
        return replace(program, rates=_stored_rates(program, checkpoint.report))
    if path.suffix == ".onnx":
        raise UsageError(f"{path} is an ordinary network; `edgesnn convert` makes a .pt of it")
    raise UsageError(f"{path} is neither a .pt checkpoint nor an .esnn program nor a bundle")


def is_converted(path: Path) -> bool:
    """Whether a .pt is what `convert` wrote, not a checkpoint of training."""
    from edgesnn.conversion.archive import is_converted as asked

    return path.is_file() and asked(path)


def _stored_rates(program: Program, report: dict[str, Any]) -> dict[str, float]:
    """`rates` (ir.Program) as far as training's report tells: means over hidden layers, and over encoders."""
    from edgesnn.compiler import ir

    spikes, steps = report.get("spikes_per_neuron"), report.get("mean_timesteps")
    if not isinstance(spikes, dict) or steps is None or spikes.get("hidden") is None:
        return {}
    sizes = {name: ir.size(shape) for name, shape in ir.shapes(program).items()}
    encoders = [n.name for n in program.nodes if isinstance(n, ir.Encoder)]
    hidden = [n.name for n in program.nodes if isinstance(n, ir.Lif | ir.Amos)]
    rates = {name: float(spikes["hidden"]) * sizes[name] for name in hidden}
    count = sum(sizes[name] for name in encoders)
    if count and spikes.get("all") is not None:
        every = float(spikes["all"]) * (count + sum(sizes[name] for name in hidden))
        share = max(every - sum(rates.values()), 0.0) / count
        rates |= {name: share * sizes[name] for name in encoders}
    return {**rates, program.output.name: float(steps)}


def evaluate(
    model: Path | str,
    data: str,
    *,
    split: str = "test",
    samples: int | None = None,
    form: str | None = None,
    weights: str | None = None,
    report: Path | str | None = None,
    data_dir: Path | str | None = None,
    threads: int | None = None,
    advance: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """What a checkpoint does on a split of `data`, in floating point and in integers (docs/EVALUATION.md).

    form: float, integer or both, for a checkpoint; by default all that it has. An .esnn or a bundle is run by
    the interpreter, by default on the first 500 samples. report: a folder for report.json and plots.
    """
    from edgesnn.reports.report import (
        check_folder,
        evaluate_checkpoint,
        evaluate_program,
        write_report,
    )

    forms = {"float": ("float",), "integer": ("integer",), "both": ("float", "integer")}
    if form is not None and form not in forms:
        raise UsageError(f"unknown form {form!r}: one of {', '.join(forms)}")
    path, place = model_file(model), Path(data_dir) if data_dir is not None else None
    folder = Path(report) if report is not None else None
    if folder is not None:
        check_folder(folder)
    if path.suffix == ".pt" and not path.is_dir() and not is_converted(path):
        out = evaluate_checkpoint(
            path,
            data,
            split=split,
            samples=samples,
            forms=forms[form] if form is not None else None,
            weights=weights,
            data_dir=place,
            threads=threads,
        )
    else:
        if weights is not None or form == "float":
            raise UsageError(f"{path} is integers already: --weights and float are for checkpoints")
        out = evaluate_program(
            load_program(path), data, split=split, samples=samples, data_dir=place, advance=advance
        )
    out["report"] = out["no_plots"] = None
    if folder is not None:
        _, out["no_plots"] = write_report(out, folder)
        out["report"] = str(folder)
    return out


def compile(
    model: Path | str,
    target: str | None = None,
    board: str | None = None,
    out: Path | str | None = None,
    *,
    codegen: str = "c",
    weights: str | None = None,
    weight_bits: int | None = None,
    prefer: str = "speed",
    budget: str | None = None,
    protocol: str = "edgesnn",
    watchdog: int | None = None,
    progress: Say | None = None,
) -> Bundle:
    """Compile a checkpoint (.pt or zoo:<name>), program (.esnn) or bundle for a target or board.

    board implies its target. out: default ./<model>-<board>/, without a board ./<model>-<target>/; an older
    bundle there is replaced.
    weights: int8, int6, int4, ternary or power-of-two, only when a checkpoint is lowered; by default what
    it was trained for. weight_bits: 2...8, the older way to say int2...int8. prefer: "speed", or "ram": layer
    by layer over all timesteps where that saves memory. protocol: of the firmware, "edgesnn" or "mlperf-tiny".
    watchdog: milliseconds after which a board that hangs resets itself.
    """
    from edgesnn.compiler.budget import parse_budget
    from edgesnn.compiler.build import compile_program, find_machine

    limits = parse_budget(budget) if budget is not None else None
    path = model_file(model)
    machine, on = find_machine(target, board)
    if watchdog is not None and on is not None and on.watchdog is None:
        others = ", ".join(one.name for one in list_boards() if one.watchdog is not None)
        raise UsageError(
            f"there is no watchdog for board {on.name}; leave out --watchdog, or take one of: {others}"
        )
    if out is None:
        out = Path(f"{path.resolve().stem}-{machine.name if on is None else on.name}")
    if weight_bits is not None:
        if weights is not None:
            raise UsageError("--weight-bits is the older form of --weights; name one of them")
        if not 2 <= weight_bits <= 8:
            raise UsageError(f"weight_bits is {weight_bits}; choose 2 to 8")
        weights = f"int{weight_bits}"
    program = load_program(path, weights)
    return compile_program(
        program,
        target,
        board=board,
        out=Path(out),
        codegen=codegen,
        prefer=prefer,
        budget=limits,
        protocol=protocol,
        watchdog=watchdog,
        progress=progress,
    )


def package(
    model: Path | str,
    kind: str,
    target: str | None = None,
    board: str | None = None,
    out: Path | str | None = None,
    *,
    codegen: str = "c",
    **options: Any,
) -> tuple[Package, dict[str, Any]]:
    """Compile a model for a target (a board's, where one is named) into a library for other people's firmware.

    kind: "cmake", "arduino", "zephyr" or "platformio" (docs/PACKAGES.md). out: default ./edgesnn_<model>/; an
    older package of the kind and model there is replaced. options: those of `compile`, but C source is all
    that a package holds. Returns the package, and what `inspect` says of the bundle that it was made from.
    """
    from edgesnn.compiler.build import find_machine
    from edgesnn.compiler.package.names import package_names
    from edgesnn.compiler.package.write import check_package, write_package

    if codegen != "c":
        raise UsageError(f"a package holds C source; leave out --codegen {codegen}")
    if options.get("protocol", "edgesnn") != "edgesnn":
        raise UsageError(f"a package holds no firmware; leave out --protocol {options['protocol']}")
    if options.get("watchdog") is not None:
        raise UsageError(f"a package holds no firmware; leave out --watchdog {options['watchdog']}")
    machine, _ = find_machine(target, board)
    name = model_file(model).resolve().stem
    place = Path(out) if out is not None else Path(package_names(name).library)
    check_package(place.resolve(), kind, name)
    with tempfile.TemporaryDirectory(prefix="edgesnn-") as folder:
        bundle = compile(model, machine.name, out=Path(folder) / "bundle", **options)
        written = write_package(bundle, load_program(bundle.path), kind, name, place)
        return written, inspect(bundle.path)


def inspect(model: Path | str, target: str | None = None) -> dict[str, Any]:
    """What is known before anything runs: memory, bounds, nodes; model as in `load_program`.

    Code size and stack are those measured when the bundle was built, None for a program alone. target: of a
    program that is no bundle, the core whose instructions are stated.
    """
    from edgesnn.compiler.inspect import describe, describe_on
    from edgesnn.runtime.bundle import Bundle

    path = model_file(model)
    if path.is_dir() and target is not None:
        raise UsageError(f"{path} is compiled already; --target is for a program")
    program = load_program(path)
    about = describe(program)
    memory: dict[str, Any] = {}
    built: dict[str, Any] = {}
    if target is not None:
        machine = find_target(target)
        about |= describe_on(program, machine)
        built = {"target": machine.name}
    if path.is_dir():
        bundle = Bundle.open(path)
        memory = bundle.manifest["memory"]
        # As it was built: the plan depends on the target and on what was preferred.
        about["nodes"] = bundle.manifest["nodes"]
        about |= {k: memory[k] for k in ("arena_bytes", "arena")}
        built = {
            "target": bundle.target,
            "board": bundle.board,
            "codegen": bundle.manifest["codegen"],
            "sections": memory["sections"],
            "versions": bundle.manifest["versions"],
        }
        # Bundles of older versions say neither.
        about |= {k: bundle.manifest.get(k) for k in ("instructions", "kernels")}
    bounds = about.pop("bounds")
    return {
        "model": about["name"],
        **built,
        "flash_bytes": memory.get("flash_bytes"),
        "ram_bytes": memory.get("ram_bytes"),
        "stack_bytes": memory.get("stack_bytes"),
        "arena_bytes": about["arena_bytes"],
        **bounds,
        **{k: v for k, v in about.items() if k not in ("name", "arena_bytes")},
    }
