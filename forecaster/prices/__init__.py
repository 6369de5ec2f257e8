"""Where prices come from and what is wrong with them."""
