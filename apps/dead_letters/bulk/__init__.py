"""Bulk operations: `plan` makes and counts them, `control` is what people do to them, `pacer` what the clock does."""
