"""Several runs over one recipe: grids (``detprune study``) and progressive pruning (``detprune progressive``)."""
