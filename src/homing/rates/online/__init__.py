"""What is learned of single samples while a model trains."""
