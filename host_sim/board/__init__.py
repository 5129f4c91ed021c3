"""The virtual node on a pseudo-terminal: a board that unmodified ``mpremote`` can use."""

from host_sim.board.board import Board

__all__ = ["Board"]
