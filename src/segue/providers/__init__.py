"""Whom model calls go to; one file a provider."""
