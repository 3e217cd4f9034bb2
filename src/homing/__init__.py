"""Fine-tune an image model for one domain, with a learned rate for every source sample."""
