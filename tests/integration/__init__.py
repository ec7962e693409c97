"""Tests with real sockets, real processes and real programs."""
