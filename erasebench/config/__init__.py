"""What was asked for: the schema, composing, choosing, building; protocols as data."""
