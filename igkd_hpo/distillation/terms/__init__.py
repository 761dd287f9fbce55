"""Terms that a recipe can add to the loss, a file each; each is a pure function that gives a scalar of about 1."""
