"""What `scale.py` measures, a stage a file."""
