"""Network descriptions by name: mcu-mlp, mcu-lenet-s, mcu-lenet."""
