"""What the frozen backbone makes of every image: one pass that fills a store of shards."""
