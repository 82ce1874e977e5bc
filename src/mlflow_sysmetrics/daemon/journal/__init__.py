"""How points wait on disk until the server has them."""
