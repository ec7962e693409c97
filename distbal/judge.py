"""Readings of one host become one verdict."""
