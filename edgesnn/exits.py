"""How a program of this package ends: an exit code, and one line for whatever went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from edgesnn.targets.errors import EdgesnnError

_EXTRAS = {
    "torch": "train",
    "sklearn": "train",
    "kornia": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "PIL": "train",
    "tensorboard": "log",
    "tvm": "compile",
    "tvm_ffi": "compile",
    "elftools": "compile",
    "intelhex": "compile",
    "onnx": "onnx",
    "serial": "boards",
    "cobs": "boards",
    "pyocd": "boards",
}


def guarded(work: Callable[[], int | None], program: str = "edgesnn") -> int:
    """Do the work; the exit code: its own (None: 0), 1 failed, 2 usage, 130 Ctrl-C.

    program: how a line on standard error begins. With EDGESNN_DEBUG=1 errors come with their traceback.
    """
    if sys.stdout is None:  # closed by whoever has started this: nobody reads it
        with open(os.devnull, "w") as nobody, redirect_stdout(nobody):
            return guarded(work, program)
    debug = os.environ.get("EDGESNN_DEBUG") == "1"
    error = f"{program}: error: "
    try:
        return _flushed(work)
    except EdgesnnError as e:
        interrupted = isinstance(e.__context__, KeyboardInterrupt)
        _say(f"{program}: " if interrupted else error, str(e))
        if debug:
            raise
        return 130 if interrupted else e.exit_code
    except ModuleNotFoundError as e:
        if debug:
            raise
        _say(error, _missing(e))
        return 1
    except KeyboardInterrupt:
        _say(f"{program}: ", "interrupted")
        return 130
    except BrokenPipeError:
        _drop_output()  # whoever read it has left
        return 0
    except OSError as e:  # files are met where they are used: left is a full or closed output
        if debug:
            raise
        _drop_output()
        _say(error, f"{e.filename or 'cannot write standard output'}: {e.strerror or e}")
        return 1
    except Exception as e:
        if debug:
            raise
        _say(
            error,
            f"unexpected {type(e).__name__}: {e} (set EDGESNN_DEBUG=1 for the traceback)",
        )
        return 1


def _flushed(work: Callable[[], int | None]) -> int:
    """Whatever was said is written when this returns, and --help, which leaves by SystemExit, too."""
    try:
        code = work() or 0
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _drop_output() -> None:
    """What standard output does not take is not offered again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _missing(e: ModuleNotFoundError) -> str:
    package = (e.name or "").split(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return f"the Python package {package or e} is missing; install edgesnn again"
    return f"this needs {package}; run `pip install 'edgesnn[{extra}]'`"


def _say(prefix: str, message: str) -> None:
    print(prefix + " ".join(message.split()), file=sys.stderr, flush=True)
