"""What a machine is: targets, boards, toolchains and emulators; imports nothing else of ours."""
