"""One run in memory: replay what the journal holds, act, and leave when everything waits."""
