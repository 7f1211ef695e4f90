"""The passes of `edgesnn.compiler.lower`, one a file; the order and its reasons stand there."""
