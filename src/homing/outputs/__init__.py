"""What a run leaves behind: rates file, results, model folder, report."""
