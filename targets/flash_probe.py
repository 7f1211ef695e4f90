"""Flashing through a debug probe, by pyOCD."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesnn.targets.errors import EdgesnnError, UsageError

if TYPE_CHECKING:
    from edgesnn.targets.board import Board
    from edgesnn.targets.flash_volume import Progress

# PARTNO of the CPUID register (Arm architecture reference manuals) by core.
_CPUID = 0xE000ED00
_CORES = {
    0xC20: "cortex-m0",
    0xC60: "cortex-m0plus",
    0xC23: "cortex-m3",
    0xC24: "cortex-m4",
    0xC27: "cortex-m7",
    0xD20: "cortex-m23",
    0xD21: "cortex-m33",
    0xD22: "cortex-m55",
}
# STM32: DEV_ID in DBGMCU_IDCODE (reference manuals RM0008, 0041, 0090, 0351, 0368, 0383, 0390, 0432).
_STM32_ID, _STM32_MASK = 0xE0042000, 0xFFF
_STM32 = {
    "stm32f100": (0x420, 0x428),
    "stm32f103": (0x410, 0x412, 0x414),
    "stm32f401": (0x423, 0x433),
    "stm32f405": (0x413,),
    "stm32f407": (0x413,),
    "stm32f411": (0x431,),
    "stm32f429": (0x419,),
    "stm32f446": (0x421,),
    "stm32l476": (0x415,),
    "stm32l4r5": (0x470,),
}
_NRF52_PART = 0x10000100  # FICR INFO.PART: 0x52840 and so on
_READ = 4096  # bytes read back at once
_NOTHING = "nothing was written"
_ERASED = "the chip was protected and is erased by now, nothing was written"


def find_probe(unique_id: str | None, how: str | None) -> Any:
    """The only probe that is plugged in, or the one whose id has `unique_id` in it.

    how: what a person does at the board first. EdgesnnError where there is none or it may not be opened;
    UsageError where there are several.
    """
    helper = _pyocd().ConnectHelper
    with _log() as said:
        try:
            probes = helper.get_all_connected_probes(blocking=False, unique_id=unique_id)
        except Exception as e:  # drivers of probes raise what they like
            raise EdgesnnError(
                f"looking for debug probes failed ({_line(e)}); plug it in again"
            ) from None
        every = probes or unique_id is None or helper.get_all_connected_probes(blocking=False)
    if len(probes) > 1:
        raise UsageError(f"several debug probes: {_names(probes)}; choose one with --probe ID")
    if probes:
        return probes[0]
    refused = next((line for line in said if "udev" in line or "ccess denied" in line), None)
    if refused is not None:
        raise _no_permission(refused.split(" This can ")[0].rstrip("."))
    missing = next((line for line in said if "libusb" in line), None)
    if missing is not None:
        raise EdgesnnError(f"pyOCD cannot look for debug probes: {missing}")
    if unique_id is not None and isinstance(every, list) and every:
        raise UsageError(f"no debug probe has the id {unique_id!r}; there is {_names(every)}")
    do = how or "plug in the USB port of the board's debugger, or a probe wired to its SWD pins"
    raise EdgesnnError(f"no debug probe found; {do}")


def _no_permission(why: str) -> EdgesnnError:
    return EdgesnnError(
        f"no permission to open the debug probe ({why}); add its udev rule (docs/FLASHING.md) and plug it in "
        "again"
    )


def write_probe(
    board: Board,
    probe: Any,
    file: Path,
    progress: Progress = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Erase, write, read back and compare, then reset. `file` is an Intel HEX file.

    A protected chip cannot be read, so it is erased before it is known to be the board's; say is told.
    Every failure is an EdgesnnError; whether the flash was touched by then is in the message.
    """
    assert board.flashing is not None and board.flashing.chip is not None
    chip, file = board.flashing.chip, file.resolve()  # pyOCD may change the folder
    state = _NOTHING
    with _log():
        session = _session(board, probe, chip, unlock=False)
        try:
            parts = _parts(file)
            problem = _open(session)
            if _protected(session.target):
                _check_room(chip, session.target, parts, state)
                session.close()
                say("the chip is protected: erasing all of it")
                state = _ERASED
                session = _session(board, probe, chip, unlock=True)
                problem = _open(session)
            if problem is not None:
                session.close()
                raise _no_connection(board, probe, chip, problem, state)
            target = session.target
            _check_chip(board, chip, target, state)
            _check_room(chip, target, parts, state)
            state = "the board now holds no whole firmware; flash it again"
            _pyocd().FileProgrammer(session, progress=progress).program(str(file))
            _compare(target, parts)
            state = "the firmware is written; press the board's reset button"
            target.reset()
        except EdgesnnError:
            raise
        except KeyboardInterrupt:
            raise EdgesnnError(f"interrupted: {state}") from None
        except Exception as e:
            raise EdgesnnError(
                f"flashing {board.name} failed ({_line(e)}), check power and cable: {state}"
            ) from None
        finally:
            with contextlib.suppress(Exception):
                session.close()


def _open(session: Any) -> Exception | None:
    """Connect; what a driver or a chip's own start-up raises where that fails."""
    try:
        session.open()
    except Exception as e:
        return e
    return None


def _protected(target: Any) -> bool:
    """Whether the chip keeps debuggers out; False too where it cannot be asked."""
    with contextlib.suppress(Exception):
        return bool(target.is_locked())
    return False


def _session(board: Board, probe: Any, chip: str, *, unlock: bool) -> Any:
    """unlock: opening it erases a chip that is protected."""
    from pyocd.core.exceptions import TargetSupportError

    try:
        return _pyocd().Session(probe, options={"target_override": chip, "auto_unlock": unlock})
    except TargetSupportError:
        assert board.flashing is not None
        do = f"run `pyocd pack install {chip}`"
        if not board.flashing.pack:
            do = f"see `pyocd list --targets` for the chip's name in {board.path.name}, or {do}"
        other = next((method for method in board.flashing.methods if method != "pyocd"), None)
        do += " (once, needs the internet)" + (f", or use --method {other}" if other else "")
        raise EdgesnnError(f"pyOCD does not know {chip} yet; {do}") from None
    except Exception as e:
        raise EdgesnnError(
            f"pyOCD cannot use the probe ({_line(e)}); {_ERASED if unlock else _NOTHING}"
        ) from None


def _no_connection(
    board: Board, probe: Any, chip: str, error: Exception, state: str
) -> EdgesnnError:
    """Why the chip could not be reached: another chip, or none that answers."""
    with contextlib.suppress(Exception):
        session = _pyocd().Session(probe, options={"target_override": "cortex_m"})
        try:
            session.open()
            _check_chip(board, chip, session.target, state)
        except EdgesnnError as e:
            return e
        finally:
            session.close()
    if "ccess denied" in str(error) or "ermission" in str(error):
        return _no_permission(_line(error))
    return EdgesnnError(
        f"no connection to the {chip} of {board.name} ({_line(error)}); {state}: check power and cable, "
        "and that no other debugger is open"
    )


def _check_chip(board: Board, chip: str, target: Any, state: str) -> None:
    """EdgesnnError where what is connected is another core or another chip than the board's."""
    part = target.read32(_CPUID) >> 4 & 0xFFF
    core = _CORES.get(part, f"core 0x{part:03x}")
    wrong = None
    if core != board.target:
        wrong = f"a {core}, {board.name} has a {board.target}"
    elif chip.startswith("nrf52"):
        found = f"nrf{target.read32(_NRF52_PART):x}"
        wrong = None if chip.startswith(found) else f"an {found}, {board.name} has an {chip}"
    else:
        ids = next((v for k, v in _STM32.items() if chip.startswith(k)), None)
        if ids is not None:
            found_id = target.read32(_STM32_ID) & _STM32_MASK
            names = [name for name, known in _STM32.items() if found_id in known]
            what = f"an {' or '.join(names)}" if names else f"an STM32 of id 0x{found_id:03x}"
            wrong = None if found_id in ids else f"{what}, {board.name} has an {chip}"
    if wrong is not None:
        raise EdgesnnError(
            f"wrong chip: the probe is connected to {wrong}; {state}: compile for the board that is there, or "
            "choose the other probe with --probe ID"
        )


def _parts(file: Path) -> list[tuple[int, bytes]]:
    """(address, bytes) of every contiguous piece of an Intel HEX file."""
    from intelhex import IntelHex

    image = IntelHex(str(file))
    return [
        (start, image.tobinstr(start=start, size=end - start)) for start, end in image.segments()
    ]


def _check_room(chip: str, target: Any, parts: list[tuple[int, bytes]], state: str) -> None:
    """EdgesnnError where the image reaches beyond the chip's flash as pyOCD knows it."""
    for start, data in parts:
        at, end = start, start + len(data)
        while at < end:
            region = target.memory_map.get_region_for_address(at)
            if region is None or not region.is_flash:
                raise EdgesnnError(
                    f"the image is too large by {end - at:,} bytes in flash, which ends at 0x{at:08x} on "
                    f"{chip}: {state}; compile for a board with this chip"
                )
            at = region.end + 1


def _compare(target: Any, parts: list[tuple[int, bytes]]) -> None:
    """Read the flash back. EdgesnnError names the first address that differs."""
    for start, data in parts:
        for at in range(0, len(data), _READ):
            wanted = data[at : at + _READ]
            found = bytes(target.read_memory_block8(start + at, len(wanted)))
            if found != wanted:
                first = next(
                    i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b
                )
                raise EdgesnnError(
                    f"the flash differs from the image at 0x{start + at + first:08x} after writing: the board "
                    "now holds no whole firmware; flash it again"
                )


class _Modules:
    """What is used of pyOCD; importing it takes a second."""

    def __init__(self) -> None:
        from pyocd.core.helpers import ConnectHelper
        from pyocd.core.session import Session
        from pyocd.flash.file_programmer import FileProgrammer

        self.ConnectHelper, self.Session, self.FileProgrammer = (
            ConnectHelper,
            Session,
            FileProgrammer,
        )


def _pyocd() -> _Modules:
    try:
        return _Modules()
    except ImportError as e:
        raise EdgesnnError(
            f"flashing through a debug probe needs pyOCD ({e}); run `pip install 'edgesnn[boards]'`"
        ) from None


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
    """Keep what pyOCD logs off the screen; the lines, warnings and above, are in the list."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    logger, handler = logging.getLogger("pyocd"), Keep(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _names(probes: list[Any]) -> str:
    return ", ".join(f"{probe.unique_id} ({probe.description})" for probe in probes)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
