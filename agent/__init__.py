"""HyprBox on a managed server: the agent `hyprnode`, and the command line `hyprbox`."""

__version__ = "0.1.0"
