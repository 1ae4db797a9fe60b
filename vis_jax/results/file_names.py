"""The files of a result."""

RESULTS, INFO = "results.json", "video.json"
