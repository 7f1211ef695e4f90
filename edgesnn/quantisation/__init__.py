"""Integer-mode training and evaluation: a torch network whose forward pass is the compiled program."""
