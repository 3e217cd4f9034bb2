"""The report: one HTML file out of what lies in a run folder."""
