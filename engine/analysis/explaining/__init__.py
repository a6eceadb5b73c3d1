"""One alert taken apart: what made it, and what would have prevented it."""
