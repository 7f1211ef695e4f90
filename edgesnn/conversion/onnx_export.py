"""A torch module to an ONNX file in memory, with the exporter that needs nothing but torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

from edgesnn.targets.errors import EdgesnnError

if TYPE_CHECKING:
    from torch import nn

OPSET = 17


def export_onnx(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """`module` in evaluation mode as ONNX, for float samples of `shape` (without the batch axis).

    Its training mode is as before afterwards. A shape that the module does not take is tried with a channel
    axis of one in front. EdgesnnError, one line, if it cannot be exported.
    """
    import torch

    modes = {m: m.training for m in module.modules()}
    first: Exception | None = None
    try:
        module.eval()
        like = next(module.parameters(), torch.zeros(()))
        for each in (shape, (1, *shape)):
            example = torch.zeros((1, *each), dtype=like.dtype, device=like.device)
            try:
                with torch.no_grad():
                    module(example)
            except Exception as error:  # whatever the module raises for a shape it does not take
                first = first or error
                continue
            return _export(module, example)
        raise EdgesnnError(
            f"{type(module).__name__} does not take samples of shape {shape}: {_line(first)}"
        )
    finally:
        for m, mode in modes.items():
            m.training = mode


def _export(module: nn.Module, example: object) -> bytes:
    import torch

    buffer, silent = io.BytesIO(), io.StringIO()
    level = logging.getLogger("torch.onnx").level
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
        ):
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.CRITICAL)
            torch.onnx.export(
                module,
                (example,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["scores"],
                dynamic_axes={"input": {0: "batch"}, "scores": {0: "batch"}},
            )
    except Exception as error:  # torch raises many kinds
        raise EdgesnnError(
            f"{type(module).__name__} cannot be exported to ONNX: {_line(error)}"
        ) from None
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    return buffer.getvalue()


def _line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
