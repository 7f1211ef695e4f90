"""Kernel families in TIR, one a file, and the code generation from them: the one room that imports tvm."""
