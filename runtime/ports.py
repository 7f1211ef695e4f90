"""The serial ports of this machine, and which of them is a board's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgesnn.targets.board import Board, list_boards
from edgesnn.targets.errors import EdgesnnError, UsageError


@dataclass(frozen=True)
class Port:
    """One serial port: what to open, its USB ids ("0d28:0204"), the serial number and name of its device.

    place: where in the tree of USB devices it is, and which interface of its device.
    """

    device: str
    usb: str | None
    serial: str | None
    title: str
    place: str = ""

    def __str__(self) -> str:
        about = ", ".join(text for text in (self.title, self.usb) if text)
        return f"{self.device} ({about})" if about else self.device


def list_ports() -> list[Port]:
    """Every serial port, by name. EdgesnnError without pyserial."""
    try:
        from serial.tools import list_ports as tools
    except ImportError:
        raise EdgesnnError(
            "finding serial ports needs pyserial; run `pip install 'edgesnn[boards]'`"
        ) from None
    found = []
    for info in tools.comports():
        usb = None if info.vid is None else f"{info.vid:04x}:{info.pid:04x}"
        title = info.description if info.description not in (None, "n/a") else ""
        found.append(Port(info.device, usb, info.serial_number, title, info.location or ""))
    return sorted(found, key=lambda port: _natural(port.device))


def find_port(board: Board, serial: str | None = None) -> str | None:
    """The port that the board is on, by the USB ids of its file; None where no port has them.

    serial: the number of the board's USB device (a probe's id); ports of other numbers are not the board's.
    Of one device's ports the first is taken. UsageError lists the ports where several devices fit.
    EdgesnnError without pyserial.
    """
    if board.usb is None or not board.usb.ids:
        return None
    ports = _firsts(port for port in list_ports() if port.usb in board.usb.ids)
    if serial:
        own = [port for port in ports if port.serial and _number(port.serial) == _number(serial)]
        ports = own or [port for port in ports if not port.serial]
    if len(ports) > 1:
        raise UsageError(
            f"several ports may be {board.name}'s: {', '.join(map(str, ports))}; choose one with --port"
        )
    return ports[0].device if ports else None


def choose_port(board: Board | None) -> str:
    """The port to listen on: the board's, without one the only port that is some known board's.

    An error that lists the ports where there is none or more than one.
    """
    ports = list_ports()
    if board is not None:
        found = find_port(board)
        if found is not None:
            return found
        about = board.usb
        wire = f"; its UART is on: {about.serial}" if about is not None and about.serial else ""
        raise EdgesnnError(f"no serial port is {board.name}'s{wire}; {_listed(ports)}")
    known = {usb for each in list_boards() if each.usb is not None for usb in each.usb.ids}
    candidates = _firsts(port for port in ports if port.usb in known)
    if len(candidates) != 1:
        what = "several boards' ports are there" if candidates else "no port is a known board's"
        raise UsageError(f"{what}; {_listed(candidates or ports)}")
    return candidates[0].device


def _firsts(ports: Iterable[Port]) -> list[Port]:
    """The first port, by interface, of every USB device; one without a serial number stands for itself."""
    firsts: dict[tuple[str | None, str], Port] = {}
    for port in sorted(ports, key=lambda port: _natural(port.place)):
        firsts.setdefault((port.usb, port.serial or port.device), port)
    return list(firsts.values())


def _number(serial: str) -> str:
    """A serial number to compare: J-Link's has leading zeros on USB, and none as a probe's id."""
    return serial.lower().lstrip("0")


def _natural(text: str) -> list[tuple[str, int]]:
    """To sort by: ttyACM9 comes before ttyACM10."""
    return [(name, int(digits or 0)) for name, digits in re.findall(r"(\D*)(\d*)", text)]


def _listed(ports: list[Port]) -> str:
    if not ports:
        return "there is no port at all: plug the board in with a cable that carries data"
    return f"name one of: {', '.join(map(str, ports))}"
