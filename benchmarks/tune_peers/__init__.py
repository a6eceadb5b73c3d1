"""What an analyst would try many settings with otherwise: a loop, data frames, SQL."""
