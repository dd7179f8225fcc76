"""Write an LLM workflow once; run it live, or through a provider's Batch API at half the price."""
