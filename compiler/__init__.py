"""The integer program: its definition, the interpreter, lowering, and code generation with TVM."""
