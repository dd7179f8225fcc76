"""Contracts: what a store, a provider, a clock and a transport promise. Their docstrings are the promises."""
