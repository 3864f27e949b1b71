"""What every room uses: time, the log, text from outside, errors, locks. It imports no other room."""
