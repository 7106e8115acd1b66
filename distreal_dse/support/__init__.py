"""What all rooms use and none is about: text that chooses, files, processes, progress, seeds."""
