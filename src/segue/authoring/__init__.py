"""What users write with: flows, steps, actors and the verbs they call."""
