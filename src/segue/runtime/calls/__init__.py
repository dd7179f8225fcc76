"""Calls carried out: steps, and requests to models, live or put in a lane."""
