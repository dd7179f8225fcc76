"""Lines for batch jobs: submitted once, followed, and delivered to the runs that wait for them."""
