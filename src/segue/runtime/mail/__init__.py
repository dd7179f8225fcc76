"""Mail beside the runs: from outside, for outside, and for later."""
