#!/bin/sh
# System packages that edgesnn uses and Python cannot bring: emulators and compilers for Arm and RISC-V, and what
# builds the packages of `compile --package` in the tests.
# Never fails: without a compiler PyPI's ziglang builds the firmware, without an emulator its boards are left out.
set -u

missing=""
need() { # command, package
  command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need qemu-system-arm qemu-system-arm
need arm-none-eabi-gcc gcc-arm-none-eabi
# Its C library has no command; a file of it tells.
[ -e "$(arm-none-eabi-gcc -print-file-name=nosys.specs 2>/dev/null)" ] || missing="$missing libnewlib-arm-none-eabi"
need qemu-system-riscv32 qemu-system-misc
need riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf
need cmake cmake
need c++ g++
"${PYTHON:-python3}" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
[ -z "$missing" ] && exit 0

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "installing$missing" >&2
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } </dev/null >/tmp/edgesnn-apt.$$ 2>&1 ||
    { tail -3 /tmp/edgesnn-apt.$$ >&2; echo "could not install$missing; going on without" >&2; }
  rm -f /tmp/edgesnn-apt.$$
elif command -v apt-get >/dev/null 2>&1; then
  echo "missing:$missing; run: sudo apt-get install -y$missing" >&2
else
  echo "missing:$missing; install them with your system's package manager" >&2
fi
exit 0
