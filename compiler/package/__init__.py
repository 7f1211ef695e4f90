"""`compile --package`: a model as a library in the layout of CMake, Arduino, Zephyr or PlatformIO."""
