"""The in-repo baseline of `make bench`: a program's topology as an ordinary dense int8 net, by the same TVM.

net.py derives the network and states what it computes (numpy), kernels.py holds its TIR kernels, firmware.py
builds it for a board, runs it emulated and compares every output with numpy, bit for bit. It exists to be
measured against; nothing of edgesnn uses it.
"""
