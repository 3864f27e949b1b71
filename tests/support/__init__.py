"""What tests share: fakes, worlds, and the real programs."""
