"""The `kernelode` command: one file a command, none of which the library imports."""
