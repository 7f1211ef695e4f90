"""Flashing without hardware: drives are folders, a probe is a double at pyOCD's own boundary."""

from __future__ import annotations

import io
import logging
import os
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesnn.targets import flash_volume
from edgesnn.targets.board import Board, Flashing, Region, load_board
from edgesnn.targets.errors import EdgesnnError, UsageError
from edgesnn.targets.flash import Choice, check_flashable, check_size, flash
from edgesnn.targets.flash_probe import find_probe, write_probe
from edgesnn.targets.flash_volume import Volume, find_volume, write_volume
from edgesnn.targets.uf2 import read_uf2, write_uf2

RP2040 = 0xE48BFF56
INFO = "UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: RPI-RP2\r\n"
DETAILS = "# DAPLink Firmware - see https://daplink.io\r\nUnique ID: {}0258\r\nDaplink Mode: {}\r\n"


# --- UF2 ----------------------------------------------------------------------------------------


def test_uf2_fields_are_those_of_the_specification() -> None:
    data = bytes(range(256)) + b"end"
    file = write_uf2(data, 0x10000000, RP2040)
    assert len(file) == 2 * 512
    for number in range(2):
        words = struct.unpack_from("<8I", file, 512 * number)
        at = 0x10000000 + 256 * number
        assert words == (0x0A324655, 0x9E5D5157, 0x2000, at, 256, number, 2, RP2040)
        (last,) = struct.unpack_from("<I", file, 512 * number + 508)
        assert last == 0x0AB16F30
    assert file[:4] == b"UF2\n"
    assert file[512 + 32 : 512 + 32 + 256] == b"end".ljust(256, b"\xff")
    assert not any(file[32 + 256 : 508])  # the rest of a block's 476 bytes is 0


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 2**22), st.integers(0, 2**32 - 1))
def test_uf2_round_trip(data: bytes, page: int, family: int) -> None:
    image = read_uf2(write_uf2(data, 256 * page, family))
    assert (image.origin, image.family) == (256 * page, family)
    assert image.data == data.ljust(-(-len(data) // 256) * 256, b"\xff")


def test_uf2_with_a_gap_and_a_block_for_elsewhere() -> None:
    blocks = [bytearray(write_uf2(bytes([n]) * 256, 0x1000 + 512 * n, 7)) for n in range(3)]
    for number, block in enumerate(blocks):
        struct.pack_into("<2I", block, 20, number, 3)
    struct.pack_into("<I", blocks[2], 8, 0x2001)  # not for the main flash
    image = read_uf2(b"".join(blocks))
    assert image.data == bytes(256) + b"\xff" * 256 + b"\x01" * 256


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f[:-1],
        lambda f: b"",
        lambda f: b"x" + f[1:],
        lambda f: f[:508] + b"xxxx" + f[512:],
        lambda f: f[512:],  # the first block is missing
        lambda f: f[:512] + f[:512],
        lambda f: f[: 512 + 28] + b"\x01\x02\x03\x04" + f[512 + 32 :],  # two families
        lambda f: f[: 512 + 12] + b"\x00\x00\x00\xff" + f[512 + 16 :],  # far away
    ],
)
def test_unsound_uf2_files_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(EdgesnnError):
        read_uf2(damage(write_uf2(bytes(512), 0x10000000, RP2040)))


def test_a_uf2_file_with_many_gaps_is_no_image() -> None:
    blocks = [bytearray(write_uf2(bytes(256), n << 25, RP2040)) for n in range(3)]
    for number, block in enumerate(blocks):
        struct.pack_into("<2I", block, 20, number, 3)
    with pytest.raises(EdgesnnError, match="0x04000000 overlaps or lies far off"):
        read_uf2(b"".join(blocks))


@pytest.mark.parametrize(("data", "origin"), [(b"", 0), (b"x", 0x10000010), (b"xx", 2**32 - 1)])
def test_uf2_of_what_it_cannot_hold(data: bytes, origin: int) -> None:
    with pytest.raises(EdgesnnError, match="no UF2 file"):
        write_uf2(data, origin, RP2040)


# --- what can be flashed ------------------------------------------------------------------------


def _board(board: Board, **about: Any) -> Board:
    """A real board with this way to be flashed."""
    about.setdefault("methods", ("volume",))
    return replace(board, name="own", emulator=None, flashing=Flashing(**about))


def test_what_cannot_be_flashed_says_why(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mps2-an386 is emulated.*edgesnn run"):
        check_flashable(board, tmp_path)
    with pytest.raises(EdgesnnError, match=r"cannot flash.*firmware\.hex.*at 0x00000000"):
        check_flashable(replace(board, emulator=None), tmp_path)
    both = _board(board, methods=("pyocd", "volume"))
    assert check_flashable(both, tmp_path) == ("pyocd", "volume")
    assert check_flashable(both, tmp_path, Choice(volume="/x")) == ("volume",)
    assert check_flashable(both, tmp_path, Choice(probe="1")) == ("pyocd",)
    for choice in (Choice("uf2"), Choice("pyocd", volume="/x"), Choice(volume="/x", probe="1")):
        with pytest.raises(UsageError, match="own is flashed by pyocd or volume"):
            check_flashable(both, tmp_path, choice)
    with pytest.raises(UsageError, match="no method 'ocd'; choose one of: pyocd, uf2, volume"):
        check_flashable(both, tmp_path, Choice("ocd"))
    with pytest.raises(UsageError, match="empty"):
        check_flashable(both, tmp_path, Choice(probe=" "))


def test_an_image_that_does_not_fit_says_where_and_by_how_much(board: Board) -> None:
    small = replace(board, flash=Region(0, 1000), ram=Region(0x20000000, 2000))
    check_size(small, 1000, 2000)
    with pytest.raises(EdgesnnError, match="too large by 24 bytes in flash"):
        check_size(small, 1024, 2000)
    with pytest.raises(EdgesnnError, match="too large by 1,000 bytes in ram"):
        check_size(small, 10, 3000)


# --- finding a drive ----------------------------------------------------------------------------


@dataclass
class Drives:
    """A machine's mounted drives, as Linux tells of them."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def add(
        self, name: str, *, label: str | None = None, mounted: bool = True, **files: str
    ) -> Path:
        """A drive mounted at a folder of this name; files: text of NAME.TXT."""
        device = self.root / "dev" / f"sd{len(list((self.root / 'dev').iterdir()))}"
        device.touch()
        if label is not None:
            (self.root / "by-label" / label.replace(" ", "\\x20")).symlink_to(device)
        place = self.root / "media" / name
        if mounted:
            place.mkdir(parents=True)
            where = str(place).replace(" ", "\\040")
            self.lines.append(f"{device} {where} vfat rw,nosuid 0 0\n")
            (self.root / "mounts").write_text("".join(self.lines))
        for stem, text in files.items():
            (place / f"{stem}.TXT").write_text(text)
        return place


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drives:
    found = Drives(tmp_path)
    for name in ("dev", "by-label"):
        (tmp_path / name).mkdir()
    (tmp_path / "mounts").touch()
    monkeypatch.setattr(flash_volume, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(flash_volume, "LABELS", tmp_path / "by-label")
    monkeypatch.setattr(sys, "platform", "linux")
    return found


def test_a_drive_is_found_by_its_label(drives: Drives) -> None:
    drives.add("OTHER", label="OTHER", INFO_UF2="Board-ID: other")
    # The label decides; the folder's name does where udev has told no label.
    own = drives.add("my board 1", label="MY BOARD")
    found = find_volume("MY BOARD", None, uf2=False, how=None)
    assert (found.path, found.about, found.gone()) == (own, {}, False)
    plain = drives.add("RPI-RP2", INFO_UF2=INFO)
    found = find_volume("RPI-RP2", None, uf2=True, how=None, ids=("RPI-RP2",))
    assert found.path == plain and found.board_id == "RPI-RP2"
    assert found.about["model"] == "Raspberry Pi RP2"
    assert found.device is not None
    found.device.unlink()
    assert found.gone()


def test_a_boot_loader_is_found_without_a_label(drives: Drives) -> None:
    drives.add("stick")
    own = drives.add("BOOT", INFO_UF2=INFO)
    assert find_volume(None, None, uf2=True, how=None).path == own


def test_no_drive(drives: Drives, tmp_path: Path) -> None:
    with pytest.raises(
        EdgesnnError, match="no drive RPI-RP2 found; hold BOOTSEL, or give --volume"
    ):
        find_volume("RPI-RP2", None, uf2=True, how="hold BOOTSEL")
    with pytest.raises(EdgesnnError, match=r"no drive with INFO_UF2\.TXT found; plug the board in"):
        find_volume(None, None, uf2=True, how=None)
    drives.add("x", label="RPI-RP2", mounted=False)
    with pytest.raises(
        EdgesnnError, match=r"plugged in, but not mounted.*udisksctl mount -b .*/dev/"
    ):
        find_volume("RPI-RP2", None, uf2=True, how=None)
    with pytest.raises(UsageError, match="there is no drive at"):
        find_volume("RPI-RP2", str(tmp_path / "nope"), uf2=True, how=None)
    with pytest.raises(
        EdgesnnError, match=r"no INFO_UF2.TXT, so it is not a board in its boot loader"
    ):
        find_volume("RPI-RP2", str(tmp_path), uf2=True, how="hold BOOTSEL")


def test_several_drives_and_those_of_other_boards(drives: Drives) -> None:
    one = drives.add("MICROBIT", label="MICROBIT", DETAILS=DETAILS.format("9901", "Interface"))
    ids = ("9903", "9904")
    with pytest.raises(
        EdgesnnError, match=r"another board's drive: it says 99010258.*9903 or 9904"
    ):
        find_volume("MICROBIT", None, uf2=False, how=None, ids=ids)
    assert find_volume("MICROBIT", None, uf2=False, how=None, ids=("9900", "9901")).path == one
    two = drives.add("MICROBIT1", DETAILS=DETAILS.format("9904", "Interface"))
    # Of two drives with one label the one that fits is the board's.
    assert find_volume("MICROBIT", None, uf2=False, how=None, ids=ids).path == two
    with pytest.raises(UsageError, match=r"several drives fit.*--volume"):
        find_volume("MICROBIT", None, uf2=False, how=None)


def test_a_debugger_in_its_own_boot_loader(drives: Drives) -> None:
    drives.add("MICROBIT", DETAILS=DETAILS.format("0000", "Bootloader"))
    with pytest.raises(EdgesnnError, match=r"MAINTENANCE.*without holding its reset button"):
        find_volume("MICROBIT", None, uf2=False, how=None, ids=("9904",))


def test_a_drive_that_does_not_say_whose_it_is(drives: Drives, tmp_path: Path) -> None:
    place = drives.add("MICROBIT")
    for path in (None, str(place)):
        with pytest.raises(
            EdgesnnError, match=r"no DETAILS.TXT with a Unique ID.*not the board's drive; plug"
        ):
            find_volume("MICROBIT", path, uf2=False, how=None, ids=("9904",))
    with pytest.raises(UsageError, match="there is no drive at"):
        find_volume("MICROBIT", "x" * 300, uf2=False, how=None)


def test_drives_of_a_mac(drives: Drives, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(flash_volume, "VOLUMES", tmp_path / "Volumes")
    place = tmp_path / "Volumes" / "RPI-RP2"
    place.mkdir(parents=True)
    (place / "INFO_UF2.TXT").write_text(INFO)
    for label in ("RPI-RP2", None):
        assert find_volume(label, None, uf2=True, how=None).path == place


# --- copying to a drive -------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A firmware file of 40 blocks."""
    file = tmp_path / "bundle" / "firmware.uf2"
    file.parent.mkdir()
    file.write_bytes(write_uf2(bytes(range(256)) * 40, 0x10000000, RP2040))
    return file


def _drive(tmp_path: Path, **files: str) -> Volume:
    place = tmp_path / "drive"
    place.mkdir()
    for stem, text in files.items():
        (place / f"{stem}.TXT").write_text(text)
    about = {"board-id": "x"} if files else {}
    return Volume(place, None, about)


@pytest.fixture
def when_whole(image: Path) -> Iterator[Callable[[Volume, Callable[[], None]], None]]:
    """when_whole(drive, do): do so as soon as the drive has the whole file, as a board would."""
    threads: list[threading.Thread] = []

    def start(drive: Volume, do: Callable[[], None]) -> None:
        def watch() -> None:
            file = drive.path / image.name
            end = time.monotonic() + 10
            while time.monotonic() < end:
                if file.exists() and file.read_bytes() == image.read_bytes():
                    return do()
                time.sleep(0.005)

        threads.append(threading.Thread(target=watch))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def test_a_boot_loader_leaves_with_the_whole_file(
    tmp_path: Path, image: Path, when_whole: Any
) -> None:
    drive = _drive(tmp_path, INFO_UF2=INFO)
    when_whole(drive, lambda: shutil.rmtree(drive.path))
    seen: list[float] = []
    write_volume(drive, image, seen.append, uf2=True)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_boot_loader_that_stays_has_not_taken_the_file(tmp_path: Path, image: Path) -> None:
    drive = _drive(tmp_path, INFO_UF2=INFO)
    said: list[str] = []
    with pytest.raises(EdgesnnError, match=r"still there 0.1 s after the copy.*flash again"):
        write_volume(drive, image, uf2=True, say=said.append, leaves=0.1)
    assert said == ["waiting for the board to take it"]
    assert (drive.path / image.name).read_bytes() == image.read_bytes()


@pytest.mark.parametrize("leaves", [True, False])
def test_an_error_at_the_end_is_none_if_the_drive_has_left(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """RP2040: it restarts with the last block, and the system's fsync finds no drive."""
    drive = _drive(tmp_path, INFO_UF2=INFO)

    def fsync(_: int) -> None:
        if leaves:
            shutil.rmtree(drive.path)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    if leaves:
        return write_volume(drive, image, uf2=True)
    with pytest.raises(EdgesnnError, match=r"failed .*no whole firmware; flash it again"):
        write_volume(drive, image, uf2=True, leaves=0.1)


def test_a_full_drive_is_not_the_boards(tmp_path: Path, image: Path) -> None:
    drive = _drive(tmp_path)
    (drive.path / image.name).symlink_to("/dev/full")
    with pytest.raises(EdgesnnError, match=r"does not fit.*: nothing was written"):
        write_volume(drive, image, uf2=False, leaves=0.1)
    assert not list(drive.path.iterdir())


def test_a_drive_that_fills_up_keeps_no_part_of_the_file(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = _drive(tmp_path)

    class Small(io.FileIO):
        def write(self, data: Any, /) -> int:
            if self.tell() >= 5000:
                raise OSError(28, os.strerror(28))
            return super().write(data[: 5000 - self.tell()])

    original = Path.open

    def small(path: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        return Small(path, mode) if mode == "wb" else original(path, mode, *words, **more)

    monkeypatch.setattr(Path, "open", small)
    with pytest.raises(EdgesnnError, match=r"does not fit.*may now hold no whole firmware"):
        write_volume(drive, image, uf2=False)
    assert not list(drive.path.iterdir())


@pytest.mark.parametrize(("code", "why"), [(30, "is read-only"), (13, "belongs to another user")])
def test_no_permission_on_the_drive(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    drive = _drive(tmp_path)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    data = image.read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda _: data)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(EdgesnnError, match=f"no permission.*{why}.*udisksctl"):
        write_volume(drive, image, uf2=False)


def test_a_debugger_that_fails_says_so_when_it_is_back(
    tmp_path: Path, image: Path, when_whole: Any
) -> None:
    drive = _drive(tmp_path, DETAILS="x")

    def remount() -> None:
        shutil.rmtree(drive.path)
        time.sleep(0.3)
        drive.path.mkdir()
        (drive.path / "FAIL.TXT").write_text("error: The hex file cannot be decoded.\ntype: user\n")
        (drive.path / "DETAILS.TXT").write_text("x")

    when_whole(drive, remount)
    with pytest.raises(
        EdgesnnError, match=r"\(error: The hex file cannot be decoded. type: user\)"
    ):
        write_volume(drive, image, uf2=False)


def test_a_debugger_that_comes_back_without_a_word(
    tmp_path: Path, image: Path, when_whole: Any
) -> None:
    drive = _drive(tmp_path, DETAILS="x", FAIL="of the time before")

    def remount() -> None:
        shutil.rmtree(drive.path)
        time.sleep(0.3)
        drive.path.mkdir()
        (drive.path / "DETAILS.TXT").write_text("x")

    when_whole(drive, remount)
    start = time.monotonic()
    write_volume(drive, image, uf2=False)
    assert time.monotonic() - start < 5


def test_an_old_failure_is_not_this_one(tmp_path: Path, image: Path) -> None:
    drive = _drive(tmp_path, DETAILS="x", FAIL="of the time before")
    write_volume(drive, image, uf2=False, reports=0.3)
    (drive.path / "FAIL.TXT").unlink()
    write_volume(drive, image, uf2=False, reports=0.3)


def test_ctrl_c_during_the_copy(tmp_path: Path, image: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    drive = _drive(tmp_path)
    with pytest.raises(
        EdgesnnError, match="interrupted: the board may now hold no whole"
    ) as caught:
        write_volume(drive, image, interrupt, uf2=False)
    assert not list(drive.path.iterdir())
    assert isinstance(caught.value.__context__, KeyboardInterrupt)  # exit code 130


# --- through a probe ----------------------------------------------------------------------------

pyocd = pytest.importorskip("pyocd")
CPUID, STM32, NRF52 = 0xE000ED00, 0xE0042000, 0x10000100
M0, M4 = 0x410CC200, 0x410FC241


def test_no_probe_is_what_pyocd_really_finds_here() -> None:
    helpers = pytest.importorskip("pyocd.core.helpers")
    if helpers.ConnectHelper.get_all_connected_probes(blocking=False):
        pytest.skip("there is a probe")
    with pytest.raises(EdgesnnError, match=r"no debug probe found; plug in the USB port"):
        find_probe(None, None)
    with pytest.raises(EdgesnnError, match=r"no debug probe found; wire it to SWDIO"):
        find_probe("1234", "wire it to SWDIO")


def _probes(monkeypatch: pytest.MonkeyPatch, *ids: str, warning: str | None = None) -> None:
    """These probes are plugged in; pyOCD logs a warning while it looks."""
    from pyocd.core.helpers import ConnectHelper
    from pyocd.probe.debug_probe import DebugProbe

    class Probe(DebugProbe):  # type: ignore[misc]
        description = "Board CMSIS-DAP"

        def __init__(self, unique_id: str) -> None:
            self._id = unique_id

        @property
        def unique_id(self) -> str:
            return self._id

        def create_associated_board(self) -> None:
            return None

    def connected(blocking: bool = True, unique_id: str | None = None) -> list[Any]:
        assert not blocking
        if warning is not None:
            logging.getLogger("pyocd.probe").warning(warning)
        return [Probe(i) for i in ids if unique_id is None or unique_id in i]

    monkeypatch.setattr(ConnectHelper, "get_all_connected_probes", staticmethod(connected))


def test_which_probe(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    _probes(monkeypatch, "AAA1", "AAA2")
    with pytest.raises(UsageError, match=r"several.*AAA1 \(Board CMSIS-DAP\), AAA2.*--probe ID"):
        find_probe(None, None)
    with pytest.raises(UsageError, match="several"):
        find_probe("AAA", None)
    assert find_probe("A2", None).unique_id == "AAA2"
    with pytest.raises(UsageError, match="no debug probe has the id 'BBB'; there is AAA1"):
        find_probe("BBB", None)
    refused = (
        "[Errno 13] Access denied (insufficient permissions) while trying to interrogate a USB device "
        "(VID=0d28 PID=0204). This can probably be remedied with a udev rule. See <x> for help."
    )
    _probes(monkeypatch, warning=refused)
    with pytest.raises(EdgesnnError, match=r"no permission.*VID=0d28 PID=0204.*udev rule \(docs"):
        find_probe(None, None)
    assert capfd.readouterr().err == ""


def test_pyocd_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyocd.core.helpers", None)
    with pytest.raises(EdgesnnError, match=r"needs pyOCD.*pip install 'edgesnn\[boards\]'"):
        find_probe(None, None)


def test_a_chip_that_needs_a_pack(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyOCD's own session says that it does not know the chip."""
    _probes(monkeypatch, "1")
    probe = find_probe(None, None)
    own = _board(board, methods=("pyocd", "volume"), chip="nochip123", pack=True)
    with pytest.raises(
        EdgesnnError, match=r"`pyocd pack install nochip123`.*or use --method volume"
    ):
        write_probe(own, probe, Path("firmware.hex"))
    own = _board(board, methods=("pyocd",), chip="nochip123")
    with pytest.raises(EdgesnnError, match=r"pyocd list --targets.*mps2-an386.toml"):
        write_probe(own, probe, Path("firmware.hex"))


@dataclass
class Chip:
    """A chip behind a probe: the double at pyOCD's boundary.

    words: what its registers read. fails: "open", "program", "reset" or "stop" (Ctrl-C). flips: the address of
    a byte that does not take what is written. locked: protected until opening it erases it.
    """

    words: dict[int, int]
    fails: str = ""
    flips: int | None = None
    locked: bool = False
    flash_bytes: int = 1 << 20
    flash: dict[int, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyocd.core import session as sessions
        from pyocd.core.exceptions import TransferError
        from pyocd.core.memory_map import FlashRegion, MemoryMap, RamRegion
        from pyocd.flash import file_programmer

        chip = self
        regions = MemoryMap(
            FlashRegion(start=0, length=self.flash_bytes, blocksize=4096),
            RamRegion(start=0x20000000, length=65536),
        )

        def read8(at: int, count: int) -> list[int]:
            return [chip.flash[at + i] for i in range(count)]

        def reset() -> None:
            chip.said.append("reset")
            if chip.fails == "reset":
                raise TransferError("no answer")

        target = SimpleNamespace(
            memory_map=regions,
            read32=lambda at: chip.words[at],
            read_memory_block8=read8,
            reset=reset,
            is_locked=lambda: chip.locked,
        )

        class Session:
            def __init__(self, probe: Any, options: dict[str, Any]) -> None:
                self.name, self.target = options["target_override"], target
                self.unlocks = options.get("auto_unlock", True) and self.name != "cortex_m"

            def open(self) -> None:
                # A probe is opened by one session at a time.
                assert sum("open" in s for s in chip.said) == sum("close" in s for s in chip.said)
                chip.said.append(f"open {self.name}")
                if chip.locked and self.unlocks:
                    chip.said.append("erased")
                    chip.locked = False
                if chip.locked:
                    raise TransferError("no cores")
                if chip.fails == "open" and self.name != "cortex_m":
                    raise KeyError(1)

            def close(self) -> None:
                if chip.said[-1] != "close":
                    chip.said.append("close")

        class Programmer:
            def __init__(self, session: Any, progress: Callable[[float], None]) -> None:
                self.progress = progress

            def program(self, path: str) -> None:
                from intelhex import IntelHex

                self.progress(0.5)
                if chip.fails == "program":
                    raise TransferError("SWD/JTAG Transfer timeout")
                if chip.fails == "stop":
                    raise KeyboardInterrupt
                chip.flash = dict(IntelHex(path).todict())
                if chip.flips is not None:
                    chip.flash[chip.flips] ^= 1
                self.progress(1.0)

        monkeypatch.setattr(sessions, "Session", Session)
        monkeypatch.setattr(file_programmer, "FileProgrammer", Programmer)


@pytest.fixture
def hex_file(tmp_path: Path) -> Path:
    """10,000 bytes at 0 and 4 further up."""
    from intelhex import IntelHex

    image = IntelHex()
    image.puts(0, bytes(i * 7 % 256 for i in range(10_000)))
    image.puts(20_000, b"tail")
    image.write_hex_file(str(tmp_path / "firmware.hex"))
    return tmp_path / "firmware.hex"


PROBE = SimpleNamespace(unique_id="1", description="double")


def test_flashing_through_a_probe(
    board: Board, hex_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip({CPUID: M4, STM32: 0x10006421})
    chip.install(monkeypatch)
    own = _board(board, methods=("pyocd",), chip="stm32f446retx")
    seen: list[float] = []
    write_probe(own, PROBE, hex_file, seen.append)
    assert seen == [0.5, 1.0]
    assert chip.said == ["open stm32f446retx", "reset", "close"]
    assert len(chip.flash) == 10_004


@pytest.mark.parametrize(
    ("name", "words", "wrong"),
    [
        ("stm32f446retx", {CPUID: M0}, "a cortex-m0, own has a cortex-m4"),
        ("stm32f446retx", {CPUID: 0x411FD132}, "a core 0xd13, own"),
        (
            "stm32f446retx",
            {CPUID: M4, STM32: 0x413},
            "an stm32f405 or stm32f407, own has an stm32f446",
        ),
        ("stm32f446retx", {CPUID: M4, STM32: 0xABC}, "an STM32 of id 0xabc, own has an stm32f446"),
        ("nrf52840", {CPUID: M4, NRF52: 0x52833}, "an nrf52833, own has an nrf52840"),
    ],
)
@pytest.mark.parametrize("fails", ["", "open"])
def test_the_wrong_chip_is_told(
    board: Board,
    hex_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: dict[int, int],
    wrong: str,
    fails: str,
) -> None:
    """Also where pyOCD's start-up of the expected chip fails on another one."""
    chip = Chip(words, fails)
    chip.install(monkeypatch)
    with pytest.raises(EdgesnnError, match=f"wrong chip.*{wrong}.*nothing was written"):
        write_probe(_board(board, methods=("pyocd",), chip=name), PROBE, hex_file)
    assert not chip.flash and chip.said[-1] == "close"


def test_a_protected_chip_is_erased_and_said_to_be(
    board: Board, hex_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _board(board, methods=("pyocd",), chip="nrf52840")
    chip = Chip({CPUID: M4, NRF52: 0x52840}, locked=True)
    chip.install(monkeypatch)
    said: list[str] = []
    write_probe(own, PROBE, hex_file, say=said.append)
    assert said == ["the chip is protected: erasing all of it"]
    opened = "open nrf52840"
    assert chip.said == [opened, "close", opened, "erased", "reset", "close"] and chip.flash

    erased = "the chip was protected and is erased by now, nothing was written"
    Chip({CPUID: M4, NRF52: 0x52833}, locked=True).install(monkeypatch)
    with pytest.raises(EdgesnnError, match=f"wrong chip.*an nrf52833.*; {erased}"):
        write_probe(own, PROBE, hex_file)
    Chip({CPUID: M4, NRF52: 0x52840}, "open", locked=True).install(monkeypatch)
    with pytest.raises(EdgesnnError, match=f"no connection.*; {erased}"):
        write_probe(own, PROBE, hex_file)
    chip = Chip({}, locked=True, flash_bytes=8192)
    chip.install(monkeypatch)
    with pytest.raises(EdgesnnError, match=r"too large.*: nothing was written"):
        write_probe(own, PROBE, hex_file)
    assert chip.said == [opened, "close"]


def test_a_chip_that_does_not_answer(
    board: Board, hex_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = Chip({CPUID: M4, NRF52: 0x52840}, "open")
    chip.install(monkeypatch)
    own = _board(board, methods=("pyocd",), chip="nrf52840")
    with pytest.raises(
        EdgesnnError, match=r"no connection to the nrf52840 of own.*nothing was written"
    ):
        write_probe(own, PROBE, hex_file)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            {"fails": "program"},
            r"\(SWD/JTAG Transfer timeout\).*: the board now holds no whole firmware",
        ),
        ({"fails": "stop"}, "interrupted: the board now holds no whole firmware; flash it again"),
        (
            {"fails": "reset"},
            "failed .no answer.*: the firmware is written; press the board's reset",
        ),
        ({"flips": 5001}, "differs from the image at 0x00001389.*no whole firmware"),
        ({"flash_bytes": 8192}, "too large by 1,808 bytes in flash.*nothing was written"),
        ({"flash_bytes": 16384}, "too large by 4 bytes in flash"),
    ],
)
def test_what_goes_wrong_while_writing(
    board: Board,
    hex_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: dict[str, Any],
    message: str,
) -> None:
    chip = Chip({CPUID: M4}, **trouble)
    chip.install(monkeypatch)
    with pytest.raises(EdgesnnError, match=message) as caught:
        write_probe(_board(board, methods=("pyocd",), chip="other"), PROBE, hex_file)
    assert [word for word in chip.said if word != "reset"] == ["open other", "close"]
    interrupted = trouble.get("fails") == "stop"
    assert isinstance(caught.value.__context__, KeyboardInterrupt) == interrupted


# --- which way ----------------------------------------------------------------------------------


def test_the_first_way_that_is_plugged_in(
    board: Board,
    drives: Drives,
    hex_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = _board(
        board, methods=("pyocd", "volume"), chip="other", volume="BOARD", volume_file="hex"
    )
    _probes(monkeypatch)
    with pytest.raises(
        EdgesnnError, match=r"own is not there: no debug probe.*; or: no drive BOARD"
    ):
        flash(own, hex_file.parent)
    place = drives.add("BOARD", DETAILS=DETAILS.format("9904", "Interface"))
    said: list[str] = []
    monkeypatch.setattr(flash_volume, "_LOOK", 0.01)
    monkeypatch.setattr(
        flash_volume.write_volume, "__kwdefaults__", {"leaves": 0.1, "reports": 0.1}
    )
    done = flash(own, hex_file.parent, say=said.append)
    assert (done.method, done.where, done.verified) == ("volume", str(place), False)
    assert done.serial == "99040258"
    waits = "waiting for the board to take it"
    assert said == [f"writing firmware.hex to {place}", waits]
    assert (place / "firmware.hex").read_bytes() == hex_file.read_bytes()
    _probes(monkeypatch, "77")
    Chip({CPUID: M4}).install(monkeypatch)
    done = flash(own, hex_file.parent)
    assert (done.method, done.serial, done.verified) == ("pyocd", "77", True)
    assert flash(own, hex_file.parent, Choice("volume")).method == "volume"
    flash(own, hex_file.parent, Choice(volume=str(place)), say=said.append)
    assert said[2] == f"nothing on {place} says whether it is the drive of own"


def test_a_uf2_file_that_is_missing_or_of_another_family(board: Board, image: Path) -> None:
    own = _board(board, methods=("uf2",), uf2_family=RP2040 + 1)
    with pytest.raises(UsageError, match="another family"):
        flash(own, image.parent)
    image.unlink()
    with pytest.raises(UsageError, match=r"holds no firmware\.uf2"):
        flash(own, image.parent)


def test_real_boards_say_how_they_are_flashed() -> None:
    ways = {name: load_board(name).flashing for name in ("pico", "nrf52840-dk", "microbit-v2")}
    assert all(ways.values())
    assert ways["pico"] is not None and ways["pico"].uf2_family == RP2040
