"""What runs a compiled model: bundle, engines, Session and Stream; numpy only, no torch, no tvm."""
