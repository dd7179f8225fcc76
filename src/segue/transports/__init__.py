"""How bytes reach a provider; one file an HTTP library."""
