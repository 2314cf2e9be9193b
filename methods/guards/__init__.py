"""Guards: what acts while images are sampled and leaves every weight as it is."""
