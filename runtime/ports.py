"""The serial ports of this machine, and which of them is a board's."""

from __future__ import annotations

from dataclasses import dataclass

from edgesnn.targets.board import Board, list_boards
from edgesnn.targets.errors import EdgesnnError, UsageError


@dataclass(frozen=True)
class Port:
    """One serial port: what to open, its USB ids ("0d28:0204"), the serial number and name of its device."""

    device: str
    usb: str | None
    serial: str | None
    title: str

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
        found.append(Port(info.device, usb, info.serial_number, title))
    return sorted(found, key=lambda port: port.device)


def find_port(board: Board, serial: str | None = None) -> str | None:
    """The port that the board is on, by the USB ids of its file; None where no port has them.

    serial: of several such ports take that of the USB device with this serial number (a probe's id).
    UsageError lists the ports where there are several. EdgesnnError without pyserial.
    """
    if board.usb is None or not board.usb.ids:
        return None
    ports = [port for port in list_ports() if port.usb in board.usb.ids]
    own = [
        port for port in ports if serial and port.serial and port.serial.lower() == serial.lower()
    ]
    ports = own or ports
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
    candidates = [port for port in ports if port.usb in known]
    if len(candidates) != 1:
        what = "several boards' ports are there" if candidates else "no port is a known board's"
        raise UsageError(f"{what}; {_listed(candidates or ports)}")
    return candidates[0].device


def _listed(ports: list[Port]) -> str:
    if not ports:
        return "there is no port at all: plug the board in with a cable that carries data"
    return f"name one of: {', '.join(map(str, ports))}"
