"""Pools of labelled images with stable ids: reading, class map, decoding, order, batches."""
