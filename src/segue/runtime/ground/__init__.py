"""What every room of the runtime stands on: events, the clock, the tasks of a run."""
