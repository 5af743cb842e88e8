"""The engine: decides what happens next in a run, and carries it out."""
