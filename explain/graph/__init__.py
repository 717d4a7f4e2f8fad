"""Everything that knows what a graph is."""
