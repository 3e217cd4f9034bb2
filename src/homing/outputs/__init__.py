"""What a run leaves behind: the rates file, the corpus, the model folder, the report."""
