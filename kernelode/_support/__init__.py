"""What any library needs: checks, files, signals, progress, memory. Nothing of the subject."""
