"""What a browser shows: the report as one file, and the pages that `bdauto run` serves.

It renders what diagnostics finds, and needs the extra `web`. It decides nothing and writes nothing to the tracker.
"""
