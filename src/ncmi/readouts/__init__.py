"""Ways to decide on frozen features, and how far to trust them."""
