"""Two rule sets over one history: what differs, and what a review may refuse."""
