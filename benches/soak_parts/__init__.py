"""The parts of benches/soak.py."""
