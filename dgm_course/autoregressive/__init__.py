"""Models that write a joint probability as a product of conditionals: p(x) = prod_i p(x_i | x_<i)."""
